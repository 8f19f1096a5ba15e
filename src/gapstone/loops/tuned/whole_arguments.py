"""The arguments of kernels over whole maps: an array of int64, addresses and sizes, read by these indices."""

# fmt: off
(
    # counters that all threads share: the next task; 1 where the answer is to be computed by the derived loop
    NEXT, BAD, TASKS,
    # avgmax: OUT is the mean, SECOND the maximum; GRAD and SECOND_GRAD likewise
    X, OUT, SECOND, KEPT0, KEPT1, GRAD, SECOND_GRAD, DX, SLOPES,
    # p or r, float32; answer i (image x channels + channel) has number i % PERIOD
    PARAMETER, PERIOD,
    # maps (images x channels), their positions; maps, or channels of an image, in a task
    MAPS, CHANNELS, LENGTH, PER_TASK,
    # how many positions each image counts, int64
    COUNTS,
    # a byte per position, bytes from one image's to the next one's (0: all images have the same): not 0 where it counts
    MASK, MASK_ROW,
    # the positions that count, int64, one image's after the other's; where each image's begin, 0 or 8 bytes to the next
    POSITIONS, BEGINS, BEGINS_ROW,
) = range(24)
# fmt: on
HOW_MANY = BEGINS_ROW + 1
