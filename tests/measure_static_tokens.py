"""Count answers of the static decoder that equal those of transformers' `generate`: `python tests/measure_static_tokens.py [SCENES] [FOLDER]`.

Asks florence-2-nano about the first SCENES held-out scenes (500 by default), random weights of the base and the large size about three of them, and
the checkpoint in FOLDER, if it is given, about three. Five images with the prompts of six tasks are a batch, with
greedy decoding and with three beams, in float32. The steps run without graphs, so that any machine can do it. Prints a line of JSON: a checkpoint
and its settings -> equal answers, all answers, tokens. 500 scenes take about 40 minutes on one core.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from measure_loading import write_checkpoints
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutput

from florence_lab import load
from florence_lab.inference.generation import encode_prompts, generate, resolve_generation_kwargs
from florence_lab.inference.graphs import GraphCache
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene

TASKS = (
    "<OD>",
    "<CAPTION>",
    "<MORE_DETAILED_CAPTION>",
    "<DENSE_REGION_CAPTION>",
    "<REGION_PROPOSAL>",
    "<OCR_WITH_REGION>",
)
NUM_TOKENS = {"florence-2-nano": 200}
"""Limit of an answer; 48 for other checkpoints, whose answers do not end by themselves."""
IMAGES_OF_RANDOM_WEIGHTS = 3
IMAGES_TOGETHER = 5


def count_equal(predictor, images, num_beams, limit):
    """Return the number of equal answers, of answers, and of the tokens in them, for images of one size."""
    graphs = GraphCache(lambda step, pool: step)
    prompts = [predictor.build_prompt(images[0].size, task).prompt for task in TASKS]
    encoded = predictor.encode_images(images)
    tokens = torch.cat([image.tokens.expand(len(prompts), -1, -1) for image in encoded])
    states = encode_prompts(predictor.model, predictor.processor.tokenizer, tokens, prompts * len(images))
    kwargs = resolve_generation_kwargs(predictor.model, {"num_beams": num_beams, "max_new_tokens": limit})
    output = BaseModelOutput(last_hidden_state=states.hidden_states.clone())
    expected = predictor.model.generate(encoder_outputs=output, attention_mask=states.attention_mask, **kwargs)
    found = [answer.token_ids.tolist() for answer in generate(predictor.model, states, kwargs, graphs=graphs)]
    assert graphs.nbytes(), "the static decoder was not used"
    pad = predictor.model.generation_config.pad_token_id
    equal = 0
    for answer, sequence in zip(found, expected[:, 1:].tolist(), strict=True):
        equal += answer == sequence[: len(answer)] and set(sequence[len(answer) :]) <= {pad}
    return equal, len(found), sum(map(len, found))


@torch.inference_mode()
def main(num_scenes="500", *folders):
    """Count for all checkpoints."""
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for checkpoint in (*folders, "florence-2-nano", "random base", "random large"):
            name = Path(checkpoint).name
            if name.startswith("random"):
                (Path(temporary) / name).mkdir()
                write_checkpoints(Path(temporary) / name, name.split()[1])
                checkpoint = Path(temporary) / name / "safetensors"
            predictor = load(checkpoint, device="cpu")
            count = int(num_scenes) if name == "florence-2-nano" else IMAGES_OF_RANDOM_WEIGHTS
            for num_beams in (1, 3):
                total = [0, 0, 0]
                for start in tqdm(range(0, count, IMAGES_TOGETHER), desc=f"{name}, {num_beams} beams"):
                    seeds = HELD_OUT_SEEDS[start : min(start + IMAGES_TOGETHER, count)]
                    images = [draw_scene(seed).image for seed in seeds]
                    found = count_equal(predictor, images, num_beams, NUM_TOKENS.get(name, 48))
                    total = [a + b for a, b in zip(total, found, strict=True)]
                rows[f"{name}, num_beams={num_beams}"] = dict(zip(("equal", "answers", "tokens"), total, strict=True))
                print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
