"""Tiny benchmarks in the published layouts: a function for each family writes the files and returns the root folder."""

import json
import pickle

import numpy as np
from PIL import Image

SIZE = (64, 48)
CAPTIONS = {
    42: ["Two dogs play on the grass.", "A pair of dogs running in a park", "dogs, playing; outside!"],
    73: ["A kitchen with a stove and a sink.", "An oven in a small kitchen", "The kitchen is white."],
    74: ["An airplane flies over the city.", "A large jet in the sky", "plane above some buildings"],
    133: ["A man hits a tennis ball.", "the player swings his racket", "Tennis player on the court."],
}


def write_image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def coco_detection(root):
    """Five images: a crowd, small and large objects, and one without objects."""
    images = [{"id": 100 - i, "file_name": f"{100 - i:012d}.jpg", "width": 64, "height": 48} for i in range(5)]
    boxes = [  # image, category, box, crowd
        (100, 1, [2, 3, 30, 40], 0),
        (100, 3, [40, 10, 20, 20], 0),
        (99, 1, [0, 0, 64, 48], 1),
        (99, 3, [5, 5, 8, 8], 0),
        (98, 1, [10, 10, 20, 30], 0),
        (98, 1, [35, 10, 20, 30], 0),
        (97, 72, [3, 4, 50, 40], 0),
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        | {"segmentation": {"size": [48, 64], "counts": [0, 64 * 48]} if crowd else []}
        for i, (image, category, box, crowd) in enumerate(boxes, start=1)
    ]
    categories = [{"id": i, "name": name} for i, name in ((1, "person"), (3, "car"), (72, "tv"))]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(root / "annotations/instances_val2017.json", content)
    for image in images:
        write_image(root / "val2017" / image["file_name"], seed=image["id"])
    return root


def _caption_annotations():
    pairs = [(id_, caption) for id_, captions in CAPTIONS.items() for caption in captions]
    return [{"id": i, "image_id": id_, "caption": caption} for i, (id_, caption) in enumerate(pairs)]


def coco_caption(root):
    names = {id_: f"COCO_val2014_{id_:012d}.jpg" for id_ in CAPTIONS}
    test = [{"image": f"val2014/{names[id_]}", "caption": captions} for id_, captions in CAPTIONS.items()]
    write_json(root / "coco_karpathy_test.json", test)
    truth = {"images": [{"id": id_} for id_ in CAPTIONS], "annotations": _caption_annotations()}
    write_json(root / "coco_karpathy_test_gt.json", truth)
    for id_, name in names.items():
        write_image(root / "val2014" / name, seed=id_)
    return root


def nocaps(root):
    domains = ["in-domain", "near-domain", "near-domain", "out-domain"]
    images = [
        {
            "id": id_,
            "file_name": f"{id_:016x}.jpg",
            "width": 64,
            "height": 48,
            "domain": domain,
            "open_images_id": str(id_),
        }
        for id_, domain in zip(CAPTIONS, domains, strict=True)
    ]
    content = {"licenses": [], "info": {}, "images": images, "annotations": _caption_annotations()}
    write_json(root / "nocaps_val_4500_captions.json", content)
    for image in images:
        write_image(root / "val" / image["file_name"], seed=image["id"])
    return root


def textcaps(root):
    data = [
        {"image_id": f"{id_:016x}", "caption_str": caption, "reference_strs": captions, "set_name": "val"}
        | {"image_width": 64, "image_height": 48, "caption_id": 10 * id_ + i, "image_path": f"train/{id_:016x}.jpg"}
        for id_, captions in CAPTIONS.items()
        for i, caption in enumerate(captions)
    ]
    write_json(root / "TextCaps_0.1_val.json", {"dataset_type": "val", "dataset_version": "0.1", "data": data})
    for id_ in CAPTIONS:
        write_image(root / "train_images" / f"{id_:016x}.jpg", seed=id_)
    return root


FLICKR_SENTENCES = {
    "1007129816": [
        "[/EN#1/people The man] with [/EN#2/bodyparts pierced ears] is wearing [/EN#3/clothing glasses] .",
        "[/EN#1/people A man] looks at [/EN#0/notvisual it] .",
    ],
    "1009434119": ["[/EN#7/animals Two black dogs] run on [/EN#8/scene the green grass] ."],
}
FLICKR_BOXES = {
    "1007129816": {"1": [(2, 2, 40, 46)], "2": [(5, 5, 12, 12), (25, 5, 32, 12)], "3": [(8, 6, 30, 10)]},
    "1009434119": {"7": [(4, 20, 24, 40), (30, 20, 50, 40)]},
}


def flickr30k(root):
    """Two images. One phrase has two boxes, one is not visual, and one is a scene without a box."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Sentences").mkdir(exist_ok=True)
    (root / "test.txt").write_text("\n".join(FLICKR_SENTENCES) + "\n")
    for id_, sentences in FLICKR_SENTENCES.items():
        (root / "Sentences" / f"{id_}.txt").write_text("\n".join(sentences) + "\n")
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for name, boxes in FLICKR_BOXES[id_].items()
            for a, b, c, d in boxes
        )
        scene = "<object><name>8</name><scene>1</scene><nobndbox>0</nobndbox></object>"
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        (root / "Annotations" / f"{id_}.xml").write_text(f"<annotation>{size}{objects}{scene}</annotation>")
        write_image(root / "flickr30k-images" / f"{id_}.jpg", seed=int(id_))
    return root


REFER_OBJECTS = {  # annotation id -> image, box, parts of the outline
    11: (581857, [4, 4, 20, 30], [[4, 4, 24, 4, 24, 34, 4, 34]]),
    12: (581857, [30, 4, 30, 40], [[30, 4, 60, 4, 60, 20, 30, 20], [30, 28, 60, 28, 60, 44, 30, 44]]),
    13: (581858, [10, 10, 40, 20], [[10, 10, 50, 10, 50, 30, 10, 30]]),
}


def refer(root, dataset="refcoco", split_by="unc"):
    refs = [
        {
            "ref_id": id_,
            "ann_id": id_,
            "image_id": image,
            "category_id": 1,
            "split": "val" if id_ != 13 else ("testA" if split_by == "unc" else "test"),
            "sent_ids": [2 * id_, 2 * id_ + 1],
            "file_name": f"COCO_train2014_{image:012d}_{id_}.jpg",
            "sentences": [
                {
                    "sent_id": 2 * id_ + i,
                    "sent": f"the {word} one",
                    "raw": f"the {word} one.",
                    "tokens": ["the", word, "one"],
                }
                for i, word in enumerate(("left" if id_ == 11 else "right", "nice"))
            ],
        }
        for id_, (image, _, _) in REFER_OBJECTS.items()
    ]
    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=0))
    images = [
        {"id": id_, "file_name": f"COCO_train2014_{id_:012d}.jpg", "width": 64, "height": 48}
        for id_ in (581857, 581858)
    ]
    annotations = [
        {"id": id_, "image_id": image, "category_id": 1, "bbox": box, "segmentation": parts, "iscrowd": 0, "area": 1.0}
        for id_, (image, box, parts) in REFER_OBJECTS.items()
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    write_json(folder / "instances.json", content)
    for image in images:
        write_image(root / "images/mscoco/images/train2014" / image["file_name"], seed=image["id"])
    return root


QUESTIONS = {  # question id -> image, question, answers
    9000: (9, "How many dogs are there?", ["2"] * 6 + ["two", "2", "3", "2 dogs"]),
    9001: (9, "Is it sunny?", ["yes"] * 10),
    25000: (25, "What is it?", ["coca cola"] * 4 + ["coca-cola"] * 3 + ["coke"] * 3),
}


def vqav2(root):
    for year, folder in (("val2014", "val2014"), ("test-dev2015", "test2015")):
        questions = [{"question_id": id_, "image_id": image, "question": q} for id_, (image, q, _) in QUESTIONS.items()]
        write_json(root / f"v2_OpenEnded_mscoco_{year}_questions.json", {"questions": questions, "info": {}})
        for image in (9, 25):
            write_image(root / folder / f"COCO_{folder}_{image:012d}.jpg", seed=image)
    annotations = [
        {
            "question_id": id_,
            "image_id": image,
            "question_type": "what",
            "answer_type": {9000: "number", 9001: "yes/no"}.get(id_, "other"),
            "multiple_choice_answer": answers[0],
            "answers": [{"answer": a, "answer_id": i, "answer_confidence": "yes"} for i, a in enumerate(answers, 1)],
        }
        for id_, (image, _, answers) in QUESTIONS.items()
    ]
    write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": annotations, "info": {}})
    return root


def textvqa(root):
    data = [
        {"question_id": id_, "image_id": f"{image:016x}", "question": question, "answers": answers, "set_name": "val"}
        for id_, (image, question, answers) in QUESTIONS.items()
    ]
    write_json(root / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "dataset_name": "textvqa", "data": data})
    for image in (9, 25):
        write_image(root / "train_images" / f"{image:016x}.jpg", seed=image)
    return root


def docvqa(root):
    data = [
        {"questionId": id_, "docId": image, "image": f"documents/page{image}_1.png", "question": question}
        | {"answers": sorted(set(answers)), "question_types": ["form"], "data_split": "val"}
        for id_, (image, question, answers) in QUESTIONS.items()
    ]
    write_json(root / "spdocvqa_qas/val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": data})
    for image in (9, 25):
        write_image(root / "spdocvqa_images" / f"page{image}_1.png", seed=image)
    return root


WRITERS = {
    "coco-detection": coco_detection,
    "coco-caption": coco_caption,
    "nocaps": nocaps,
    "textcaps": textcaps,
    "flickr30k": flickr30k,
    "refcoco": refer,
    "refcoco+": lambda root: refer(root, "refcoco+"),
    "refcocog": lambda root: refer(root, "refcocog", "umd"),
    "res": refer,
    "vqav2": vqav2,
    "textvqa": textvqa,
    "docvqa": docvqa,
}
"""Suite -> the function that writes its files."""
