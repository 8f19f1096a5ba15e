"""sum(map_k) + bias_k == logit_k where the head allows it; gradient × activation through the head alone elsewhere."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gapstone.heads import Head, NotLinearError
from gapstone.heads.reads import BackboneOutput, Reads, read_backbone
from gapstone.maps.explanation import Explanation, ShownImages
from gapstone.maps.targets import Classes, and_mean, select_classes
from gapstone.maps.vector_parts import VectorOf, VectorParts, explain_vectors, vector_parts, vectors_read
from gapstone.models.classifier import Classifier
from gapstone.runtime.eval_mode import eval_mode
from gapstone.tracing.locate_head import locate_features, locate_head
from gapstone.tracing.placement import Placement
from gapstone.tracing.tape import SplitError
from gapstone.tracing.trace import HeadTracer
from gapstone.tracing.traced_head import TracedHead


def explain(
    model: nn.Module,
    images: Any,
    classes: Classes | None = None,
    *,
    top_k: int | None = None,
    at: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool | None = None,
) -> Explanation:
    """What every position of the last feature map adds to each class's logit, from one forward pass.

    Examples:
        >>> resnet = torchvision.models.resnet18().eval()  # any nn.Module; nothing of it changes
        >>> images = torch.rand(4, 3, 224, 224)
        >>> explained = gs.explain(resnet, images)
        >>> explained.maps.shape  # every class, in logit units
        torch.Size([4, 1000, 7, 7])
        >>> torch.allclose(explained.maps.sum((2, 3)) + explained.bias, explained.logits, atol=1e-4)
        True
        >>> gs.explain(resnet, images, torch.tensor([3, 1, 4, 1])).maps.shape  # labels (N,): each image's own class
        torch.Size([4, 1, 7, 7])
        >>> gs.explain(resnet, images, [281, 282]).maps.shape  # a list: these of every image
        torch.Size([4, 2, 7, 7])
        >>> gs.explain(gs.load("photos.safetensors"), ["a.jpg", "b.jpg"], top_k=1).classes.shape  # files, too
        torch.Size([2, 1])

    The last map and what follows it are found by watching the model run. Where its head is linear in what it pools
    (mean, maximum, both, flattened, pooled to a grid, one map per class, any pool of gapstone's that adds up), the maps
    are exact: they and the bias sum to the logit. So they do where a norm follows the pool, with its standard deviation
    held as a number of the image, and of attention pooling, with its weights held: a map shows what the positions said,
    not why they were listened to. Where a class token answers (ViT, DeiT, CaiT, …), they are of the patch tokens that
    enter the last block in which it hears of them, with attention, norms and activations' gates held; what it brings
    itself is in `bias`. `held` says which. Where the head has hidden layers, maps are gradient × activation
    at the last map, by a vector-Jacobian product through the head alone; `additive` is then False and `completeness`
    says what they leave out. A model that ends in a softmax, log-softmax or sigmoid is explained at the logits before
    it, and `end` says so. The backbone is never differentiated; nothing of the model changes.

    Source: Zhou et al., Learning deep features for discriminative localization, arXiv 1512.04150.

    Args:
        model: any nn.Module from images to logits.
        images: (N, C, *spatial), normalised; for a gapstone model also files and pictures, as `Classifier.predict`.
        classes: None: all. A list: these of every image, by number or, where there are labels, by name. A tensor or
            array (N,), as labels come: one class of each image, maps (N, 1, …); for these of every image, `y.tolist()`.
            A list of one list per image, or a tensor (N, k): each image's own.
        top_k: the most probable classes of each image, in that order.
        at: the module whose output is the last map, where it cannot be found or another is wanted ("layer4"): (N, C, h,
            w), (N, h, w, C), or tokens (N, h·w, C), also with a class token before them.
        labels: of the classes; a gapstone model brings its own.
        multi_label: whether the logits are for sigmoids, as those of `BCEWithLogitsLoss`, and not for a softmax: then
            each class has a probability of its own, and its map is shown as it is. None: of a gapstone model what it
            says itself, of others no; a model that ends in a sigmoid is seen to, anyway.

    Returns:
        The explanation: maps, bias, logits, and where the cells lie in the images.

    Raises:
        SplitError: there is no last map; says what was seen and what to do. A ValueError.
        ValueError: classes that are not there, or rows of them for another number of images.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"explain takes a model (an nn.Module), and got a {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise SplitError(
            "a scripted or traced model is one call to torch, in which no map is seen; give the module it was made of"
        )
    if isinstance(model, Classifier):
        labels = model.labels if labels is None else labels
        images = images if isinstance(images, Tensor) else model.tensor(images)
    if not isinstance(images, Tensor):
        raise TypeError(f"explain takes images as a tensor (N, C, H, W), normalised, and got a {type(images).__name__}")
    if images.dim() < 3 or not len(images):
        raise ValueError(f"explain takes at least one image, (N, C, H, W), and got a tensor of {tuple(images.shape)}")
    if multi_label is None:
        multi_label = isinstance(model, Classifier) and model.multi_label
    names = tuple(labels) if labels is not None else None
    moments = (model.preprocessing.mean, model.preprocessing.std) if isinstance(model, Classifier) else None
    seen = ShownImages(images.detach(), moments)
    if isinstance(model, Classifier) and at is None and has_maps(model.head):
        return replace(_known(model, images, classes, top_k, names), seen=seen, multi_label=multi_label)
    if isinstance(model, Classifier) and at is None and model.head.reads.class_token and model.head.reads.layers > 1:
        found = explain_model_vectors(model, images, classes, top_k, names)
        return replace(found, seen=seen, multi_label=multi_label)
    traced, location = locate_head(getattr(model, "_orig_mod", model), images, at)
    prefix = 0 if location.mixed else location.prefix
    explained = _made(traced, Placement.of(location), classes, top_k, names, location.grid, prefix)
    if at is not None and location.prefix and not explained.maps.any():
        raise SplitError(
            f"at={at!r}: after this module the logits of {type(model).__name__} come from the first tokens alone (a "
            f"class token), so no position adds anything: name an earlier module, before the last attention"
        )
    return replace(explained, seen=seen, multi_label=multi_label)


def _known(
    model: Classifier, images: Tensor, classes: Classes | None, top_k: int | None, labels: tuple[str, ...] | None
) -> Explanation:
    """Of a model whose head is known: no watching but for the places, once per image size."""
    with eval_mode(model), torch.no_grad():
        features, location = locate_features(model.features, images, model.head.reads)
        placement = Placement.of(location)
        return explain_head(model.head, features, classes, top_k=top_k, labels=labels, placement=placement)


@torch.no_grad()
def explain_model_vectors(
    model: Classifier,
    images: Tensor,
    classes: Classes | None = None,
    top_k: int | None = None,
    labels: tuple[str, ...] | None = None,
) -> Explanation:
    """Of a model whose head answers from vectors of the backbone: each is taken apart by itself, in a pass for each."""
    features, reads = model.features, model.head.reads
    with eval_mode(model):
        parts = [vector_parts(VectorOf(features, own, back), images) for own, back in vectors_read(reads)]
        output = read_backbone(features, images, Reads(layers=reads.layers)) if reads.maps else None
        assert not isinstance(output, BackboneOutput)
        return explain_vectors(model.head, VectorParts.cat(parts), output, classes, top_k=top_k, labels=labels)


def has_maps(head: Head) -> bool:
    """Whether a head's maps can be told from what it reads.

    A class token that answers has heard of all positions in the layers before, and so may the vector of a backbone's
    own pooler: what a position adds there, `explain` asks of the whole model.
    """
    return head.reads.maps_alone or head.attends_to_class_token


@torch.no_grad()
def explain_head(
    head: Head,
    features: Tensor | BackboneOutput,
    classes: Classes | None = None,
    *,
    top_k: int | None = None,
    labels: tuple[str, ...] | None = None,
    placement: Placement | None = None,
) -> Explanation:
    """The same from feature maps (N, C, *cells), with the class token beside them where attention looks at it, too."""
    x, grid, prefix = features, None, 0
    if isinstance(x, BackboneOutput):
        grid = tuple(x.maps.shape[2:])
        x, prefix = x.tokens, 1
    placement = placement or Placement.even(grid or x.shape[2:], grid or x.shape[2:])
    with eval_mode(head):
        if head.additive:
            logits: Tensor = head(features)
            selected = select_classes(classes, top_k, logits, labels)
            with suppress(NotLinearError):  # another library has exchanged its last layer
                exact = head.contributions(features, and_mean(selected))
                bias = exact.bias.detach()
                return Explanation.made(exact.maps, selected, bias, logits, True, placement, labels, exact.held)
        x = x.detach()
        with HeadTracer(x, into=head) as tracer:
            tracer.starts(x)
            logits = head(x)
    assert tracer.tape is not None
    return _made(TracedHead(tracer.tape, logits), placement, classes, top_k, labels, grid, prefix)


def _made(
    traced: TracedHead,
    placement: Placement,
    classes: Classes | None,
    top_k: int | None,
    labels: tuple[str, ...] | None,
    grid: tuple[int, ...] | None = None,
    prefix: int = 0,
) -> Explanation:
    selected = select_classes(classes, top_k, traced.logits, labels)
    maps = traced.maps(and_mean(selected))
    if grid is not None:
        maps = maps[:, :, prefix:].reshape(*maps.shape[:2], *grid)
    additive = traced.additive and not prefix  # what a class token adds belongs to no position
    facts = additive, placement, labels, traced.holds, traced.end
    return Explanation.made(maps, selected, traced.bias(), traced.logits, *facts)
