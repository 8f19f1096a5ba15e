"""The smallest network of every family of timm's: it opens in `explain`, or a sentence says why not and what to do."""

import pytest
import torch

import gapstone as gs
from gapstone.tracing.tape import SplitError

FAMILIES = [
    "beit_base_patch16_224", "halonet_h1", "test_byobnet", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "test_convnext", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s",
    "cspnext_tiny", "davit_tiny", "deepseek_vit_412m", "deit_tiny_patch16_224", "densenet121", "dla46x_c",
    "dpn48b", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "test_efficientnet",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "vit_tiny_patch16_dinov3_qkvb", "fasternet_t0",
    "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "gemma4_vit_167m", "ghostnet_050", "hardcorenas_b",
    "hgnetv2_b0", "hiera_tiny_224", "sam2_hiera_tiny", "hrnet_w18_small", "iformer_t", "inception_next_atto",
    "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_small", "levit_128s", "lowformer_b0",
    "test_mambaout", "test_coatnet", "poolformerv2_s12", "gmlp_ti16_224", "mobilenetv3_small_050",
    "mobilenetv5_base", "mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_parfac_gap", "nasnetalarge",
    "nest_tiny", "nextvit_small", "test_nfnet", "pit_ti_224", "pnasnet5large", "pvt_v2_b0", "qwen3_vit_88m",
    "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50", "resnest14d", "test_resnet",
    "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18",
    "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11",
    "visformer_tiny", "test_vit", "vit_tiny_r_s16_p8_224", "test_vit_relpos", "samvit_base_patch16_224",
    "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim_dw", "legacy_xception", "xception41p",
    "xcit_nano_12_p8_224",
]  # fmt: skip
REFUSED = {
    "coat_tiny": "several maps together",  # class tokens of three scales
    "crossvit_tiny_240": "several maps together",  # two sets of tokens
    "efficientvim_m1": "several maps together",  # logits of three stages
    "hiera_tiny_224": "another order",  # its tokens stand window by window
}
NOT_ADDITIVE = {
    "cpubone_nano", "efficientvit_b0", "fasternet_t0", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0",
    "inception_next_atto", "lcnetv2_small", "lowformer_b0", "mobilenetv3_small_050", "repghostnet_050", "test_mambaout",
    "vgg11",
}  # fmt: skip
"""Hidden layers after the pool."""


def model_and_images(name):
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'gapstone[zoo]'")
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_the_smallest_of_each_family(name):
    model, images = model_and_images(name)
    explained = gs.explain(model, images, top_k=2)
    with torch.no_grad():
        torch.testing.assert_close(explained.logits, model(images), rtol=1e-4, atol=1e-5)
    assert explained.additive == (name not in NOT_ADDITIVE)
    if explained.additive:
        assert explained.completeness.max() <= 1e-5 * explained.logits.abs().max()
    # positions in proportion to the picture, and more than one
    h, w = explained.maps.shape[2:]
    assert h * images.shape[3] == w * images.shape[2]
    assert h > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason_and_a_way(name):
    model, images = model_and_images(name)
    with pytest.raises(SplitError, match=f"{REFUSED[name]}.*(?s:.*)name (a|the) module"):
        gs.explain(model, images)
