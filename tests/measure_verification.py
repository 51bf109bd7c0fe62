"""Measure what speaks for a box, each ingredient alone and all together: `python tests/measure_verification.py [MODEL] [SCENES]`.

In each held-out scene 8 names are asked for by open-vocabulary detection, at most 4 of which it shows. The table tells for each
ingredient how well it tells right boxes from wrong ones (AUROC), precision and recall of the boxes whose value is at least 0.5,
the prompts that the text encoder reads for it, and the processor time of one thread, without the detection itself.
"""

import sys
import time

import numpy as np
import pandas as pd
from tqdm import tqdm

import florence_lab
from florence_lab.detection.calibration import fit_weights
from florence_lab.detection.verification import name_spellings, region_log_likelihoods, verify
from florence_lab.evaluation import area_under_roc
from florence_lab.evaluation.matching import match_instances, pairwise_iou
from florence_lab.inference.generation import encode_prompts
from florence_lab.inference.scoring import answer_log_likelihoods
from florence_lab.results import Boxes
from florence_lab.scenes import CATEGORIES, HELD_OUT_SEEDS, draw_scene

NUM_NAMES, NUM_PRESENT = 8, 4
SEEDS = HELD_OUT_SEEDS[600:]  # the first 500 are those of the README's tables
KEPT = ("own", "p_name", "p_among")


def main(model="florence-2-nano", num_scenes=100):
    predictor = florence_lab.load(model)
    rng = np.random.default_rng(0)
    parts = [measure_scene(predictor, draw_scene(seed), rng) for seed in tqdm(SEEDS[: int(num_scenes)])]
    rows = pd.concat([part for part, _, _ in parts], ignore_index=True)
    costs = pd.DataFrame([cost for _, cost, _ in parts]).mean()
    num_objects = sum(count for _, _, count in parts)
    print(f"{len(rows)} boxes, {rows.is_right.sum()} right, of {num_objects} objects")
    print(table(rows, costs, num_objects).to_string(float_format="{:.3f}".format))


def measure_scene(predictor, scene, rng):
    """Return a row for each candidate, its costs, and the number of objects that were asked for."""
    present = list(dict.fromkeys(o.label for o in scene.objects))
    names = rng.permutation(present)[:NUM_PRESENT].tolist()
    names += [name for name in rng.permutation(CATEGORIES).tolist() if name not in present][: NUM_NAMES - len(names)]
    image = predictor.encode_image(scene.image)
    candidates, questions = ask(predictor, image, names)
    truth = scene.answer("<OD>")
    truth = truth[np.isin(truth.labels, names)]
    values, cost = {}, {}

    def measure(name, passes, function):
        start = time.process_time()
        found = function()
        cost[f"{name} ms"] = (time.process_time() - start) * 1000
        cost[f"{name} passes"] = passes if passes is not None else found.passes
        return found

    evidence = measure("p_name", None, lambda: verify(predictor, image, candidates, names))
    values |= {name: evidence[name] for name in evidence.names}
    values["p_name, geometric mean"] = values["p_name"] ** (1 / 2)  # the names of nano are a token, and the end
    every = measure("p_name, each box", len(candidates), lambda: unshared(predictor, image, candidates, names))
    values["p_name, each box"] = every
    od = measure("<OD>, same label", 1, lambda: predictor.predict(image, "<OD>"))
    proposals = measure("<REGION_PROPOSAL>", 1, lambda: predictor.predict(image, "<REGION_PROPOSAL>"))
    iou = pairwise_iou(candidates, od)
    same = iou * (candidates.labels[:, None] == od.labels[None])
    values["<OD>, same label"], values["<OD>, any label"] = same.max(axis=1, initial=0), iou.max(axis=1, initial=0)
    values["<REGION_PROPOSAL>"] = pairwise_iou(candidates, proposals).max(axis=1, initial=0)
    empty = measure("1 - p(empty)", len(names), lambda: p_empty(predictor, image, questions))
    values["1 - p(empty)"] = 1 - empty[[names.index(label) for label in candidates.labels.tolist()]]
    is_right = match_instances(candidates, truth) >= 0
    return pd.DataFrame(values | {"is_right": is_right, "scene": scene.seed}), cost, len(truth)


def ask(predictor, image, names):
    questions = [predictor.build_prompt(image.size, "<OPEN_VOCABULARY_DETECTION>", name) for name in names]
    answers = predictor.predict_prompts([image] * len(names), questions)
    candidates = Boxes(
        raw="",
        image_size=image.size,
        labels=[name for name, answer in zip(names, answers, strict=True) for _ in range(len(answer))],
        boxes=np.concatenate([answer.xyxy for answer in answers]),
        scores=np.concatenate([answer.scores for answer in answers]),
    )
    return candidates, questions


def unshared(predictor, image, candidates, names):
    """p_name, without sharing the pass of boxes that are nearly the same."""
    columns = [names.index(label) for label in candidates.labels.tolist()]
    if not columns:
        return np.zeros(0)
    nothing = np.zeros((len(columns), len(names)), bool)
    log_p, _ = region_log_likelihoods(predictor, image, candidates.boxes, list(map(name_spellings, names)), nothing)
    return np.exp(log_p[np.arange(len(columns)), columns])


def p_empty(predictor, image, questions):
    """The probability of the empty answer to each question."""
    tokenizer = predictor.processor.tokenizer
    tokens = image.tokens.expand(len(questions), -1, -1)
    states = encode_prompts(predictor.model, tokenizer, tokens, [question.prompt for question in questions])
    values = answer_log_likelihoods(predictor.model, tokenizer, states, range(len(questions)), [""] * len(questions))
    return np.exp([v.sum() for v in values])


def table(rows, costs, num_objects):
    is_right = rows.is_right.to_numpy()
    ingredients = [name for name in rows.columns if name not in ("is_right", "scene")]
    combined = {
        "own, p_name, p_among together": list(KEPT),
        "all together": [n for n in ingredients if "," not in n or "OD" in n],
    }
    columns = {name: rows[name].to_numpy() for name in ingredients}
    columns |= {name: cross_validated(rows, chosen) for name, chosen in combined.items()}
    lines = {}
    for name, values in columns.items():
        chosen = values >= 0.5
        hits = (chosen & is_right).sum()
        lines[name] = {
            "AUROC": area_under_roc(values, is_right),
            "precision": hits / max(1, chosen.sum()),
            "recall": hits / num_objects,
            "passes": costs.get(f"{name} passes", np.nan),
            "ms": costs.get(f"{name} ms", np.nan),
        }
    return pd.DataFrame(lines).T


def cross_validated(rows, names, num_folds=5):
    """The probabilities of a logistic regression that was fitted to other scenes."""
    features = rows[names].clip(0, 1).to_numpy()
    is_right = rows.is_right.to_numpy()
    fold_of = rows.scene.to_numpy() % num_folds
    scores = np.zeros(len(rows))
    for fold in range(num_folds):
        test = fold_of == fold
        weights, bias = fit_weights(features[~test], is_right[~test])
        odds = np.log(np.clip(features[test], 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(features[test], 1e-6, 1 - 1e-6))
        scores[test] = 1 / (1 + np.exp(-(odds @ weights + bias)))
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
