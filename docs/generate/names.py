"""What to write for a name known from elsewhere. tests/test_pools_page.py runs both sides of every row, gradients too.

`x` is a map (N, C, H, W), `y` one without negative numbers, `x1` and `x3` have one and three spatial axes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    there: str
    here: str
    note: str = ""
    run: str = ""
    """The same in torch, where `there` cannot be run: Keras is no part of the project."""


TORCH = [
    Row("F.max_pool2d(x, 3, 2, 1)", 'gs.pool(x, "max", over=gs.Window(3, 2, 1))'),
    Row("nn.MaxPool2d(3, 2, 1)(x)", 'gs.Pool("max", over=gs.Window(3, 2, 1))(x)'),
    Row("F.max_pool1d(x1, 3)", 'gs.pool(x1, "max", over=gs.Window(3))', "the axes are those of the map"),
    Row("F.max_pool3d(x3, (1, 2, 2))", 'gs.pool(x3, "max", over=gs.Window((1, 2, 2)))'),
    Row(
        "F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True)",
        'gs.pool(x, "max", over=gs.Window(3, 2, 1, dilation=2, ceil_mode=True))',
        "dilation for every pool, not only max",
    ),
    Row(
        "F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)",
        'gs.pool(x, "max", over=gs.Window(3, 2, ((0, 1), (0, 1))))',
        "padding after, but not before",
    ),
    Row("-F.max_pool2d(-x, 3)", 'gs.pool(x, "min", over=gs.Window(3))'),
    Row("F.avg_pool2d(x, 3)", 'gs.pool(x, "mean", over=gs.Window(3))'),
    Row(
        "F.avg_pool2d(x, 3, 2, padding=1)",
        'gs.pool(x, "mean", over=gs.Window(3, 2, 1, divisor="padded"))',
        "torch counts the padding as zeros, unless told not to",
    ),
    Row(
        "F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)",
        'gs.pool(x, "mean", over=gs.Window(3, 2, 1))',
        "the default here",
    ),
    Row(
        "F.avg_pool2d(x, 4, 3, padding=1, ceil_mode=True)",
        'gs.pool(x, "mean", over=gs.Window(4, 3, 1, ceil_mode=True, divisor="padded"))',
        "what hangs over beyond the padding is not counted",
    ),
    Row("F.avg_pool2d(x, 3, divisor_override=5)", 'gs.pool(x, "mean", over=gs.Window(3, divisor=5))'),
    Row(
        "F.avg_pool2d(x, 3, 2, padding=1, divisor_override=1)",
        'gs.pool(x, "sum", over=gs.Window(3, 2, 1))',
        "sum pooling",
    ),
    Row("nn.AvgPool1d(2)(x1)", 'gs.Pool("mean", over=gs.Window(2))(x1)'),
    Row("F.avg_pool3d(x3, 2, 1)", 'gs.pool(x3, "mean", over=gs.Window(2, 1))'),
    Row("F.adaptive_avg_pool2d(x, 7)", 'gs.pool(x, "mean", over=gs.Grid(7))'),
    Row("F.adaptive_max_pool2d(x, (2, 3))", 'gs.pool(x, "max", over=gs.Grid((2, 3)))'),
    Row(
        "F.adaptive_avg_pool2d(x, (None, 7))",
        'gs.pool(x, "mean", over=gs.Grid((x.shape[2], 7)))',
        "None: as many cells as positions",
    ),
    Row("F.adaptive_max_pool1d(x1, 4)", 'gs.pool(x1, "max", over=gs.Grid(4))'),
    Row("nn.AdaptiveAvgPool3d((1, 2, 2))(x3)", 'gs.Pool("mean", over=gs.Grid((1, 2, 2)))(x3)'),
    Row("nn.AdaptiveAvgPool2d(1)(x)", 'gs.pool(x, "mean", over=gs.Grid(1))', "(N, C, 1, 1)"),
    Row("nn.AdaptiveAvgPool2d(1)(x).flatten(1)", 'gs.pool(x, "mean")', "(N, C): global average pooling"),
    Row("nn.AdaptiveMaxPool2d(1)(x).flatten(1)", 'gs.pool(x, "max")', "global max pooling"),
    Row("x.mean((2, 3))", 'gs.pool(x, "mean")'),
    Row(
        "x.amax((2, 3))",
        'gs.pool(x, "max")',
        "of a tie, torch shares the gradient out; here the first position takes it, as in max_pool2d",
    ),
    Row("x.amin((2, 3))", 'gs.pool(x, "min")', "the same"),
    Row("x.sum((2, 3))", 'gs.pool(x, "sum")'),
    Row("x.var((2, 3))", 'gs.pool(x, "variance", correction=1)', "torch divides by n − 1; the default here by n"),
    Row("x.std((2, 3), correction=0)", 'gs.pool(x, "std")'),
    Row(
        "torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)",
        'gs.pool(x, ("mean", "std"), correction=1)',
        "statistics pooling; any tuple of pools",
    ),
    Row("nn.LPPool2d(2, 3, stride=2)(x)", 'gs.Pool("l2", over=gs.Window(3, 2))(x)'),
    Row(
        "F.lp_pool2d(y, 3, 2)",
        'gs.pool(y, "lp", over=gs.Window(2), p=3)',
        "of negative numbers torch takes powers with their sign; here of |x|",
    ),
    Row("torch.linalg.vector_norm(x, 3, (2, 3))", 'gs.pool(x, "lp", p=3)'),
    Row("x.norm(dim=(2, 3))", 'gs.pool(x, "l2")'),
    Row(
        "x.logsumexp((2, 3))",
        'gs.pool(x, "logsumexp", r=1) + math.log(x[0, 0].numel())',
        "here a mean: log of the sum *over n*",
    ),
    Row("(x * x.flatten(2).softmax(-1).view_as(x)).sum((2, 3))", 'gs.pool(x, "softmax")', "SoftPool, global"),
    Row(
        "F.avg_pool2d(x * x.exp(), 2) / F.avg_pool2d(x.exp(), 2)",
        'gs.pool(x, "softmax", over=gs.Window(2))',
        "SoftPool; no overflow",
    ),
    Row("y.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)", 'gs.pool(y, "gem")', "GeM; no overflow in half precision"),
    Row(
        "F.avg_pool2d(y.clamp(min=1e-6).pow(p), 2).pow(1 / p)",
        'gs.pool(y, "gem", over=gs.Window(2), p=p)',
        "p a number, or a tensor that is learned",
    ),
    Row("x.flatten(2).topk(5).values.mean(-1)", 'gs.pool(x, "topk", k=5)'),
    Row(
        "x.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(-1).values",
        'gs.pool(x, "median", over=gs.Window(3, 1))',
        "of an even number torch takes the lower of the two in the middle; here their mean",
    ),
    Row("x.flatten(2).quantile(0.9, dim=-1)", 'gs.pool(x, "quantile", q=0.9)'),
    Row(
        "F.scaled_dot_product_attention(query[None, None], tokens, tokens)[:, 0]",
        'gs.pool(x, "attention", query=query)',
        "one query, `tokens = x.flatten(2).mT`",
    ),
    Row(
        "torch.cat([F.adaptive_max_pool2d(x, n).flatten(2) for n in (1, 2, 4)], 2)",
        'gs.pool(x, "max", over=gs.Pyramid((1, 2, 4)))',
        "spatial pyramid pooling",
    ),
    Row(
        "(x * mask[:, None]).sum((2, 3)) / mask.sum((1, 2))[:, None]",
        'gs.pool(x, "mean", over=gs.Mask(mask))',
        "`mask` (N, H, W), of bool or of weights",
    ),
    Row(
        "x.masked_fill(~mask[:, None], -math.inf).amax((2, 3))",
        'gs.pool(x, "max", over=gs.Mask(mask))',
    ),
    Row(
        "x.new_zeros(2, 3, 5).index_add(2, labels.flatten(), x.flatten(2))",
        'gs.pool(x, "sum", over=gs.Segments(labels, 5))',
        "`labels` (H, W), or (N, H, W)",
    ),
    Row(
        'x.new_zeros(2, 3, 5).scatter_reduce(2, labels.flatten().expand(2, 3, -1), x.flatten(2), "mean", '
        "include_self=False)",
        'gs.pool(x, "mean", over=gs.Segments(labels, 5))',
        "torch_scatter's `scatter_mean`, PyG's `global_mean_pool`",
    ),
]

TORCHVISION = [
    Row(
        "torchvision.ops.roi_pool(x, boxes, 3, 0.5)",
        'gs.pool(x, "max", over=gs.Boxes(boxes, 3, scale=0.5))',
        "a cell without a position is −∞ here, 0 there",
    ),
    Row(
        "torchvision.ops.roi_align(x, boxes, 3, 0.5, sampling_ratio=2, aligned=True)",
        'gs.pool(x, "mean", over=gs.Boxes(boxes, 3, scale=0.5, sampling=2))',
        "any pool in place of the mean",
    ),
    Row(
        "torchvision.ops.roi_align(x, boxes, 3, 0.5, sampling_ratio=2)",
        'gs.pool(x, "mean", over=gs.Boxes(boxes, 3, scale=0.5, sampling=2, half_pixel=False))',
        "torchvision's default is half a position off",
    ),
    Row(
        "torchvision.ops.roi_pool(x, [boxes[:1, 1:], boxes[1:, 1:]], 3, 0.5)",
        'gs.pool(x, "max", over=gs.Boxes([boxes[:1, 1:], boxes[1:, 1:]], 3, scale=0.5))',
        "a list with one tensor per image",
    ),
]

TIMM = [
    Row('timm.layers.SelectAdaptivePool2d(pool_type="avg", flatten=True)(x)', 'gs.Pool("mean")(x)'),
    Row('timm.layers.SelectAdaptivePool2d(pool_type="max", flatten=True)(x)', 'gs.Pool("max")(x)'),
    Row('timm.layers.SelectAdaptivePool2d(pool_type="avgmax", flatten=True)(x)', 'gs.Pool("avgmax")(x)'),
    Row('timm.layers.SelectAdaptivePool2d(pool_type="catavgmax", flatten=True)(x)', 'gs.Pool("catavgmax")(x)'),
    Row(
        'timm.layers.SelectAdaptivePool2d(output_size=2, pool_type="avgmax")(x)',
        'gs.Pool("avgmax", over=gs.Grid(2))(x)',
    ),
    Row("timm.layers.pool2d_same.MaxPool2dSame(3, 2)(x)", 'gs.Pool("max", over=gs.Window(3, 2, "same"))(x)'),
    Row(
        "timm.layers.pool2d_same.AvgPool2dSame(3, 2)(x)",
        'gs.Pool("mean", over=gs.Window(3, 2, "same", divisor="padded"))(x)',
    ),
    Row("timm.layers.median_pool.MedianPool2d(3)(x)", 'gs.Pool("median", over=gs.Window(3, 1))(x)'),
]

KERAS = [
    Row("MaxPooling2D(2)", 'gs.Pool("max", over=gs.Window(2))(x)', run="F.max_pool2d(x, 2)"),
    Row(
        'MaxPooling2D(3, 2, "same")',
        'gs.Pool("max", over=gs.Window(3, 2, "same"))(x)',
        run="F.max_pool2d(F.pad(x, (1, 1, 0, 1), value=-math.inf), 3, 2)",
    ),
    Row("AveragePooling2D(3, 1)", 'gs.Pool("mean", over=gs.Window(3, 1))(x)', run="F.avg_pool2d(x, 3, 1)"),
    Row(
        'AveragePooling2D(3, 2, "same")',
        'gs.Pool("mean", over=gs.Window(3, 2, "same"))(x)',
        "as on TensorFlow and JAX; on torch Keras repeats the edge where the padding is odd",
        run="F.avg_pool2d(F.pad(x, (1, 1, 0, 1)), 3, 2) / F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 0, 1)), 3, 2)",
    ),
    Row("GlobalAveragePooling2D()", 'gs.Pool("mean")(x)', run="x.mean((2, 3))"),
    Row("GlobalMaxPooling2D()", 'gs.Pool("max")(x)', run="x.amax((2, 3))"),
    Row(
        "GlobalAveragePooling2D(keepdims=True)",
        'gs.Pool("mean", over=gs.Grid(1))(x)',
        run="x.mean((2, 3), keepdim=True)",
    ),
    Row(
        "GlobalAveragePooling1D()(x1, mask=valid)",
        'gs.Pool("mean")(x1, over=gs.Mask(valid))',
        "`valid` (N, L), of bool",
        run="(x1 * valid[:, None]).sum(2) / valid.sum(1)[:, None]",
    ),
]

TABLES = {"torch": TORCH, "torchvision": TORCHVISION, "timm": TIMM, "Keras": KERAS}
