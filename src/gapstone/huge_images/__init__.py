"""Images of any size: readers behind one class, window by window or band by band, and writers that rows are given to."""
