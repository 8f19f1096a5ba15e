"""The arguments of kernels over windows: an array of int64, addresses and sizes, read by these indices."""

# fmt: off
(
    # the next task, a counter that all threads share; 1 where there was a NaN
    NEXT, BAD, TASKS,
    X, OUT, KEPT, GRAD, DX,
    PLANES, CHANNELS,
    # the map and the answer; the window's first place, stride along depth, size and dilation along depth
    D, H, W, OD, OH, OW, BEFORE_D, BEFORE_H, BEFORE_W, SD, KD, DD,
    # bytes of a slice of x along depth, of all of a plane's slices, and of a plane of answers
    SLICE_BYTES, PLANE_BYTES, OUT_BYTES,
    # columns that sixteen answers look at
    REACH,
    # rows of answers that are done at a time; backward, rows of dx by the row of windows that begins there
    BANDS, BAND_ROWS, GROUPS,
    # what a mean multiplies by: where each row of answers (all, where the step is 0) finds its table, in bytes from
    # INVERSES
    CLASSES, CLASS_STEP, INVERSES,
    # the window's strides, where they are not compiled in
    STRIDE_H, STRIDE_W,
    # a pixel of what stands for places that are not on the map
    BLANK,
) = range(35)
# fmt: on
HOW_MANY = BLANK + 1
