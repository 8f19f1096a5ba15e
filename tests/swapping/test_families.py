"""A new head on torchvision's and timm's networks: nobody told `swap_head` where theirs is."""

import pytest
import torch

from gapstone.swapping import swap_head
from gapstone.tracing.tape import SplitError
from tests.swapping.swapping_checks import TORCHVISION, outcome, passes, torchvision_model

QUICK = [
    "ConvNeXt", "DenseNet", "SwinTransformer", "VisionTransformer", "googlenet", "mobilenet_v3_small", "resnet18",
    "squeezenet1_1",
]  # fmt: skip
KEEP_THEIR_CLASS = {
    "ConvNeXt", "SwinTransformer", "alexnet", "convnext_tiny", "efficientnet_b0", "efficientnet_v2_s", "maxvit_t",
    "mobilenet_v3_small", "mobilenet_v3_large", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "squeezenet1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg16_bn", "wide_resnet50_2",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TORCHVISION]
)
def test_torchvision(name):
    torch.manual_seed(0)
    module, then, side, other_size = TORCHVISION[name]
    original = torchvision_model(name).eval()
    images = torch.randn(2, 3, side, side)
    model = swap_head(original, "gap", 7, images=images)
    assert (type(model) is type(original)) == (name in KEEP_THEIR_CLASS)
    map = passes(original, model, images, 7, other_size)
    expected = outcome(original, module, images)
    expected = then(expected) if then else expected
    torch.testing.assert_close(map, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


KEEPS, WRAPPED = "keeps its class", "wrapped"
TIMM = {
    KEEPS: [
        "botnet26t_256", "coatnet_nano_rw_224", "convmixer_768_32", "convnext_atto", "convnextv2_atto", "cspresnet50",
        "cspdarknet53", "davit_tiny", "densenet121", "dla34", "dpn68", "eca_nfnet_l0", "edgenext_xx_small",
        "efficientnet_b0", "efficientvit_b0", "efficientvit_m0", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf",
        "gcvit_xxtiny", "gernet_s", "haloregnetz_b", "hardcorenas_a", "hgnetv2_b0", "hrnet_w18_small", "inception_v4",
        "lcnet_050", "mambaout_femto", "maxxvit_rmlp_nano_rw_256", "mixnet_s", "mnasnet_small", "mobilenetv1_100",
        "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs",
        "mobilevitv2_050", "nest_tiny", "nf_resnet50", "regnety_002", "regnetv_040",
    ],
    WRAPPED: [
        "beit_base_patch16_224", "cait_xxs24_224", "convit_tiny", "deit_tiny_patch16_224", "efficientformer_l1",
        "deit_tiny_distilled_patch16_224", "efficientformerv2_s0", "levit_128s", "mixer_s32_224",
        "poolformer_s12", "pvt_v2_b0",
    ],
}  # fmt: skip
REFUSED = {
    "crossvit_tiny_240": "no last feature map",  # two streams of tokens
    "coat_tiny": "no last feature map",  # class tokens of three scales
    "hiera_tiny_224": "not seen as a grid",  # tokens in an order of their own
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), [(name, kept == KEEPS) for kept, names in TIMM.items() for name in names])
def test_timm(name, kept):
    import timm

    torch.manual_seed(0)
    original = timm.create_model(name, num_classes=11).eval()
    images = torch.randn(2, *original.default_cfg["input_size"])
    model = swap_head(original, "gap", 7)
    assert (type(model) is type(original)) == kept
    map = passes(original, model, images, 7, other_size=False)
    with torch.no_grad():
        maps = original.forward_features(images)
    if maps.shape == map.shape:
        torch.testing.assert_close(map, maps, rtol=1e-3, atol=1e-3 * float(maps.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_timm_refused(name):
    import timm

    with pytest.raises(SplitError, match=REFUSED[name]):
        swap_head(timm.create_model(name), "gap", 7)
