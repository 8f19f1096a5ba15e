"""What every swapped model must do; and where torchvision's networks have their last map, told by hand."""

import torch
from torch import Tensor, nn

import gapstone as gs
from gapstone.swapping import head_of, swapped


def channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def tokens(x: Tensor) -> Tensor:
    side = int((x.shape[1] - 1) ** 0.5)
    return x[:, 1:].transpose(1, 2).reshape(len(x), -1, side, side)


# name: (module that gives the last map, what is done to it, side of the images, whether it takes other sizes)
TORCHVISION = {
    "alexnet": ("features", None, 128, True),
    "convnext_tiny": ("features", None, 64, True),
    "densenet121": ("features", torch.relu, 64, True),
    "efficientnet_b0": ("features", None, 64, True),
    "efficientnet_v2_s": ("features", None, 64, True),
    "googlenet": ("inception5b", None, 64, True),
    "inception_v3": ("Mixed_7c", None, 128, True),
    "maxvit_t": ("blocks.3", None, 224, False),
    "mnasnet0_5": ("layers", None, 64, True),
    "mobilenet_v2": ("features", None, 64, True),
    "mobilenet_v3_small": ("features", None, 64, True),
    "mobilenet_v3_large": ("features", None, 64, True),
    "regnet_x_400mf": ("trunk_output", None, 64, True),
    "regnet_y_400mf": ("trunk_output", None, 64, True),
    "resnet18": ("layer4", None, 64, True),
    "resnet50": ("layer4", None, 64, True),
    "resnext50_32x4d": ("layer4", None, 64, True),
    "shufflenet_v2_x0_5": ("conv5", None, 64, True),
    "squeezenet1_0": ("features", None, 64, True),
    "squeezenet1_1": ("features", None, 64, True),
    "swin_t": ("norm", channels_first, 64, True),
    "swin_v2_t": ("norm", channels_first, 64, True),
    "vgg11": ("features", None, 64, True),
    "vgg16_bn": ("features", None, 64, True),
    "vit_b_32": ("encoder", tokens, 224, False),
    "wide_resnet50_2": ("layer4", None, 64, True),
    # the large families' classes, small: their first weights take longer than all that is asked of them
    "ConvNeXt": ("features", None, 64, True),
    "DenseNet": ("features", torch.relu, 64, True),
    "SwinTransformer": ("norm", channels_first, 64, True),
    "VisionTransformer": ("encoder", tokens, 64, False),
}


def torchvision_model(name: str, **options: object) -> nn.Module:
    import torchvision
    from torchvision.models import convnext

    if name == "ConvNeXt":
        blocks = [convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
        return torchvision.models.ConvNeXt(blocks)
    if name == "DenseNet":
        return torchvision.models.DenseNet(8, (2, 2), 16)
    if name == "SwinTransformer":
        return torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4])
    if name == "VisionTransformer":
        return torchvision.models.VisionTransformer(64, 16, 2, 4, 64, 128)
    if name in ("googlenet", "inception_v3"):  # their own initialisation takes half a minute
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **options)


def outcome(model: nn.Module, module: str, images: Tensor) -> Tensor:
    """What a module gives."""
    seen: list[Tensor] = []
    hook = model.get_submodule(module).register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    with torch.no_grad():
        model(images)
    hook.remove()
    return seen[-1]


def into_head(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The map that the head took, and the model's answer."""
    seen: list[Tensor] = []
    hook = head_of(model)[1].register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().clone()))
    try:
        out = model(images)
    finally:
        hook.remove()
    assert len(seen) == 1
    assert isinstance(out, Tensor)
    return seen[0], out


def passes(original: nn.Module, model: nn.Module, images: Tensor, classes: int, other_size: bool = True) -> Tensor:
    """All that is asked of a swapped model; gives the map that its head took, in eval mode."""
    report, (path, head) = swapped(model), head_of(model)
    assert (report.at, report.head, report.classes) == (path, head.spec, classes)
    assert report.after == sum(p.numel() for p in model.parameters())
    assert report.before == sum(p.numel() for p in original.parameters())

    # the backbone's weights stay, under their names
    prefix, old = "features.net." if report.wrapped else "", original.state_dict()
    kept = {key for key in model.state_dict() if not key.startswith(f"{path}.")}
    assert kept
    assert {key.removeprefix(prefix) for key in kept} <= old.keys()
    assert all(torch.equal(model.state_dict()[key], old[key.removeprefix(prefix)]) for key in kept)

    # logits of both signs come through, in eval mode, for one image and for several
    model.eval()
    with torch.no_grad():
        reach = 1 + model(images).abs().max()
        head.classifier[-1].bias[:2] = torch.stack([reach, -reach])
        map, out = into_head(model, images)
        torch.testing.assert_close(out, head(map))
        assert out.shape == (len(images), classes)
        assert out.min() < 0 < out.max()
        torch.testing.assert_close(model(images[:1]), out[:1], rtol=1e-3, atol=1e-3)
        if other_size:
            larger = torch.randn(1, *images.shape[1:-1], images.shape[-1] + 32)
            seen, answer = into_head(model, larger)
            assert seen.shape[-1] > map.shape[-1]
            torch.testing.assert_close(answer, head(seen))

    explained = gs.explain(model, images[:1])
    assert explained.additive
    assert explained.completeness.max() < 1e-3 * max(1, explained.logits.abs().max())

    # training: logits and nothing else; every parameter has a gradient
    model.train()
    seen, out = into_head(model, torch.cat([images, images.flip(-1)]))
    assert out.shape == (2 * len(images), classes)
    assert out.requires_grad
    out.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    model.zero_grad()
    model.eval()
    return map
