"""The arguments of a compiled kernel: an array of int64, addresses and sizes, read by these indices."""

# fmt: off
(
    # counters that all threads share: the next task, the next piece of scratch
    NEXT, SLOT, TASKS, SCRATCH, SCRATCH_BYTES,
    X, OUT, GRAD, DX, SLOPES,
    # dx is added to, for positions are met more than once
    ADD,
    # bytes from one image's parameters to the next one's; 0: all images have the same
    PARAMETER, PARAMETER_IMAGE,
    # the parts of the state that are kept for the backward; 0: it is not
    KEPT0, KEPT1, KEPT2, KEPT3,
    CHANNELS,

    # over_places: the answer has a row per image or rectangle (IMAGES: its image; 0: row r is image r), and cells
    ROWS, IMAGES, CELLS, CHANNELS_PER_TASK, CELLS_PER_TASK,
    IMAGE_BYTES, LANE_BYTES, POSITION_BYTES,
    # strides of the answer, in elements
    OUT_ROW, OUT_LANE, OUT_CELL,
    # positions one after the other (0: boxes), where each answer's begin, 0: all images have the same, their weights
    POSITIONS, LISTS, LISTS_ROW, WEIGHTS,
    # boxes: per axis where each interval starts and stops, and what a mean divides by (0: how many positions there are)
    CELLS1, CELLS2, LENGTH1, LENGTH2, STEP0, STEP1, STEP2,
    STARTS0, STARTS1, STARTS2, STOPS0, STOPS1, STOPS2, COUNTS0, COUNTS1, COUNTS2,
    # 1: each row has intervals of its own
    BOXES_ROW,
    # positions of a whole map
    LENGTH,
    # offsets into a thread's scratch
    TABLE, BUFFER, SPILL, LEVELS, LINE,

    # over_windows: planes that are worked on together, bands of answers' rows
    PLANES, GROUP, BANDS, ROWS_PER_BAND,
    # sizes of the map and of the answer; the window's size, stride, padding before, and dilation along depth
    D, H, W, OD, OH, OW, KD, KH, KW, SD, SH, SW, BD, BH, BW, STEPD,
    # rows and columns of a plane in one phase, elements of scratch for one slice of depth
    PHASE_ROWS, Q, SLICE,
    # per tap, where its first element is in scratch, and in the table of which places are on the map
    TAPS, VALID_TAPS, VALID,
    # which lanes are answers; how many positions a lane has, and along depth
    LANES_OK, COUNTS, COUNTS_D,
    XS, DS, FLAT, FLAT_BYTES,
) = range(89)
# fmt: on
HOW_MANY = FLAT_BYTES + 1
