"""`gapstone serve MODEL`: a page where a picture is dropped in and the model's reasons are looked at."""
