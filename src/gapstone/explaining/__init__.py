"""`gapstone explain` and `gapstone predict`: class activation maps and predictions of many image files.

explain_files.py runs `explain`: map_pass.py (network; resumable) → draw_maps.py (PNGs, thumbnails; resumable) →
explain_json.py, explain_page.py, explain_table.py
"""
