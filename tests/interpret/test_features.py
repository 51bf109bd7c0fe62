"""Feature maps of the image encoder."""

import pytest

from florence_lab.inference.davit import stage_grids
from florence_lab.interpret import extract_feature_maps, show_feature_maps


@pytest.mark.parametrize("model", ["nano", "small"])
def test_each_stage_has_its_feature_map(model, scene, request):
    predictor = request.getfixturevalue(model)
    config = predictor.model.config.vision_config
    size = predictor.processor.image_processor.size
    maps = extract_feature_maps(predictor, scene.image)
    grids = stage_grids(predictor.model, (size["height"], size["width"]))
    assert [m.shape for m in maps] == [(c, *grid) for c, grid in zip(config.embed_dim, grids, strict=True)]


def test_hooks_are_removed(small, scene):
    extract_feature_maps(small, scene.image)
    assert not any(stage[-1]._forward_hooks for stage in small.model.model.vision_tower.blocks)


def test_maps_are_shown_beside_the_image(small, scene):
    figure = show_feature_maps(small, small.encode_image(scene.image))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "3 x 192 x 192",
        *(" x ".join(map(str, m.shape)) for m in extract_feature_maps(small, scene.image)),
    ]
    assert figure.axes[1].images[0].get_array().min() >= 0
    assert figure.axes[1].images[0].get_array().max() <= 1
