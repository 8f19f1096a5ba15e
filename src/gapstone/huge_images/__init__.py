"""Images of any size: readers behind one class, window by window or band by band."""
