"""Tokens that a run adds to the vocabulary, and tasks of its own: from training rows to checkpoints that are loaded again."""

import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from support import edit_json

from florence_lab import load
from florence_lab.cli import main
from florence_lab.exceptions import ArgumentError, CheckpointError, FlorenceLabWarning, TrainingError
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.lora import merge_lora
from florence_lab.finetuning.new_tokens import read_new_tokens
from florence_lab.finetuning.run import sft
from florence_lab.loading.added_tokens import add_tokens, embedding_table
from florence_lab.loading.checkpoint import load_checkpoint
from florence_lab.results import Boxes, Text
from florence_lab.scenes import TRAIN_SEEDS
from florence_lab.tasks import TASKS, Task, get_task, register_task

pytestmark = pytest.mark.usefixtures("one_thread")

VQA = "<DocVQA>"
MY_OD = Task("<MyOD>", prompt="<MyOD>{input}", input="phrase", result="boxes")


@pytest.fixture(autouse=True)
def own_tasks():
    """The table of tasks is restored after each test."""
    published = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(published)


def forget_tasks():
    """Begin as a new process does."""
    for token in [token for token in TASKS if token in (VQA, MY_OD.token, "<VQA>")]:
        del TASKS[token]


@pytest.fixture(scope="module")
def own_rows(rows_folder):
    """Rows of an own token that is answered with text, with and without a blank behind it, and of one with boxes."""
    image = f"{TRAIN_SEEDS[-1]}.png"
    rows = [
        {"query": f"{VQA}How many?", "response": "three", "images": [image]},
        {"query": f"{VQA} Which one? ", "response": "this <loc_1><loc_2><loc_3><loc_4>", "images": [image]},
        {"query": "<MyOD>a sheep", "response": "sheep<loc_1><loc_2><loc_30><loc_40>", "images": [image]},
        {"query": "<OD>", "response": "sheep<loc_1><loc_2><loc_30><loc_40>", "images": [image]},
    ]
    path = rows_folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def train(make_arguments, own_rows, tmp_path_factory):
    """Train two steps on `own_rows` and return the checkpoint; runs of equal options are trained once."""
    trained = {}

    def run(sft_type):
        if sft_type not in trained:
            register_task(MY_OD)
            options = {"sft_type": sft_type, "dataset": str(own_rows), "new_special_tokens": (VQA, "<MyOD>")}
            output = tmp_path_factory.mktemp(sft_type)
            trained[sft_type] = sft(make_arguments(output, learning_rate=0.05, **options))
            forget_tasks()
        return trained[sft_type]

    return run


def answers(folder, rows_folder):
    """The answers of a checkpoint to questions of its own tasks, and its tokens of a prompt."""
    predictor = load(folder, device="cpu")
    image = predictor.encode_image(rows_folder / f"{TRAIN_SEEDS[-1]}.png")
    results = [predictor.predict(image, VQA, "How many?"), predictor.predict(image, "<MyOD>a sheep")]
    assert [type(result) for result in results] == [Text, Boxes]
    assert [result.prompt for result in results] == [f"{VQA}How many?", "<MyOD>a sheep"]
    assert [result.task for result in results] == [VQA, "<MyOD>"]
    tokens = predictor.processor.tokenizer.tokenize(f"{VQA}How")
    return [result.raw for result in results], tokens, embedding_table(predictor.model)


@pytest.mark.parametrize("sft_type", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_checkpoint_has_the_tokens_and_tasks_that_it_was_trained_with(
    sft_type, train, rows_folder, tmp_path, checkpoint
):
    folder = train(sft_type)
    assert not {VQA, "<MyOD>"} & TASKS.keys()
    raw, tokens, table = answers(folder, rows_folder)
    assert (get_task(VQA), get_task("<myod>")) == (Task(VQA), MY_OD)
    assert tokens[0] == VQA

    base, processor = load_checkpoint(checkpoint)
    number = len(processor.tokenizer)
    assert len(table) == number + 2
    add_tokens(base, processor.tokenizer, (VQA, "<MyOD>"))
    moved = (table - embedding_table(base)).abs().amax(dim=1)
    assert (moved[number:] > 0.01).all()  # both are trained
    assert bool((moved[:number] == 0).all()) == (sft_type == "lora")

    predictor = load(folder, device="cpu")
    predictor.save_pretrained(tmp_path / "saved")
    folders = [tmp_path / "saved"]
    if sft_type == "lora":
        folders.append(merge_lora(folder, tmp_path / "merged"))
    for other in folders:
        forget_tasks()
        other_raw, other_tokens, other_table = answers(other, rows_folder)
        assert (other_raw, other_tokens) == (raw, tokens)
        torch.testing.assert_close(other_table, table)
        assert get_task("<MyOD>") == MY_OD


@pytest.mark.slow
def test_the_model_in_training_answers_as_the_loaded_one(own_rows, arguments, monkeypatch, rows_folder):
    from florence_lab.finetuning.trainer import Florence2Trainer, predictor_from_training_model

    trained = []

    def save(self, *args, save=Florence2Trainer._save_checkpoint):
        save(self, *args)
        predictor = predictor_from_training_model(self.accelerator.unwrap_model(self.model), self.processor, "trained")
        image = rows_folder / f"{TRAIN_SEEDS[-1]}.png"
        trained.append([predictor.predict(image, query).raw for query in (f"{VQA}How many?", "<OD>")])
        self.model.train()

    monkeypatch.setattr(Florence2Trainer, "_save_checkpoint", save)
    register_task(MY_OD)
    folder = sft(arguments(dataset=str(own_rows), new_special_tokens=VQA, learning_rate=0.05))
    predictor = load(folder, device="cpu")
    image = rows_folder / f"{TRAIN_SEEDS[-1]}.png"
    assert [predictor.predict(image, query).raw for query in (f"{VQA}How many?", "<OD>")] == trained[-1]


@pytest.mark.slow
@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_a_run_with_new_tokens_is_resumed(sft_type, arguments, own_rows, interrupt_run):
    register_task(MY_OD)
    options = {"dataset": str(own_rows), "new_special_tokens": VQA, "sft_type": sft_type, "learning_rate": 0.01}
    whole = sft(arguments(output_dir=arguments().output_dir + "-whole", **options))
    interrupt_run(arguments(**options), 1)
    resumed = sft(arguments(**options, resume_from_checkpoint=True))
    name = "adapter_model.safetensors" if sft_type == "lora" else "model.safetensors"
    first, second = load_file(whole / name), load_file(resumed / name)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, second[key], msg=key)


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint_with_tokens(train, arguments, own_rows):
    merged = merge_lora(train("lora"), arguments().output_dir + "-merged")
    rows = own_rows.with_name("other.jsonl")
    line = {"query": "<VQA>Why?", "response": "so", "images": [f"{TRAIN_SEEDS[-1]}.png"]}
    rows.write_text(json.dumps(line) + "\n")
    forget_tasks()
    adapter = sft(arguments(model_id_or_path=str(merged), dataset=str(rows), new_special_tokens=(VQA, "<VQA>")))
    forget_tasks()
    predictor = load(adapter, device="cpu")
    assert predictor.processor.tokenizer.tokenize(f"{VQA}<VQA>a") == [VQA, "<VQA>", "a"]
    assert [TASKS[token] for token in (VQA, "<MyOD>", "<VQA>")] == [Task(VQA), MY_OD, Task("<VQA>")]


def test_rows_of_own_tasks_are_validated(own_rows, arguments, rows_folder):
    rows = rows_folder / "bad.jsonl"
    image = f"{TRAIN_SEEDS[-1]}.png"
    queries = {"<MyOD>a": "no box", VQA: "<loc_1> any text", "<CAPTOIN>": "a sheep", f"{VQA}</s>": "a"}
    lines = [{"query": query, "response": text, "images": [image]} for query, text in queries.items()]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    register_task(MY_OD)
    with pytest.raises(TrainingError, match="3 invalid rows") as caught:
        sft(arguments(dataset=str(rows)))
    for text in (
        "row 1: target does not fit the task: no location follows 'no box'",
        "row 3: invalid query: unknown task '<CAPTOIN>'; did you mean '<CAPTION>'",
        "row 4: invalid query",
    ):
        assert text in str(caught.value)


@pytest.mark.slow
def test_the_command_line_trains_and_exports_and_infers(checkpoint, own_rows, rows_folder, tmp_path, capsys):
    register_task(MY_OD)
    model = ["--model_id_or_path", str(checkpoint), "--device", "cpu"]
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("<MyOD>")
    options = ["--max_steps", "2", "--output_dir", str(tmp_path / "runs"), "--new_special_tokens", VQA, str(tokens)]
    assert main(["sft", *model, "--dataset", str(own_rows), *options]) == 0
    adapter = capsys.readouterr().out.splitlines()[-1]
    assert main(["export", "--ckpt_dir", adapter, "--output_dir", str(tmp_path / "merged")]) == 0
    answers = []
    for folder in (adapter, str(tmp_path / "merged")):
        forget_tasks()
        capsys.readouterr()
        query = ["--query", f"{VQA}How many?", "--images", str(rows_folder / f"{TRAIN_SEEDS[-1]}.png")]
        assert main(["infer", "--ckpt_dir", folder, "--device", "cpu", *query]) == 0
        answers.append(capsys.readouterr().out)
        assert get_task("<MyOD>") == MY_OD
    assert answers[0] == answers[1]
    assert f"{VQA}How many?" in answers[0]


@pytest.mark.slow
def test_without_new_tokens_the_tasks_are_stored_all_the_same(arguments, own_rows):
    register_task(MY_OD)
    folder = sft(arguments(dataset=str(own_rows)))
    forget_tasks()
    predictor = load(folder, device="cpu")
    assert (TASKS[VQA], TASKS["<MyOD>"]) == (Task(VQA), MY_OD)
    assert VQA not in predictor.processor.tokenizer.get_vocab()


@pytest.mark.slow
def test_published_tasks_leave_no_file(arguments, tmp_path):
    folder = sft(arguments())
    load(folder, device="cpu").save_pretrained(tmp_path / "saved")
    assert not [*folder.glob("*tasks*"), *(tmp_path / "saved").glob("*tasks*")]


def test_a_registered_task_is_kept_when_a_checkpoint_has_another(train):
    folder = train("lora")
    other = register_task(Task("<MyOD>", prompt="Find {input}", input="phrase", result="polygons"))
    with pytest.warns(FlorenceLabWarning, match=r"trained with the task Task\(.*'<MyOD>.*is registered, which is used"):
        load(folder, device="cpu")
    assert TASKS["<MyOD>"] is other


def test_a_task_that_differs_in_its_description_only_does_not_warn(checkpoint, tmp_path):
    register_task(Task(VQA, description="questions about documents"))
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    (folder / "florence_lab_tasks.json").write_text(json.dumps({"tasks": [{"token": VQA}]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlorenceLabWarning)
        load(folder, device="cpu")
    assert TASKS[VQA].description == "questions about documents"


def test_an_adapter_with_a_larger_table_is_loaded_with_its_tokenizer(checkpoint, tmp_path):
    """Other tools train the whole table: `modules_to_save` of PEFT."""
    model, processor = load_checkpoint(checkpoint)
    add_tokens(model, processor.tokenizer, [VQA])
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["shared"])
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    edit_json(tmp_path / "adapter_config.json", base_model_name_or_path=str(checkpoint))
    predictor = load(tmp_path, device="cpu")
    assert predictor.processor.tokenizer.tokenize(f"{VQA}a") == [VQA, "a"]
    assert predictor.predict(Image.new("RGB", (64, 64)), VQA, "a").task == VQA
    for path in tmp_path.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="shape"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"tasks": 1}', "tasks must be a list, got 1"),
        ("{", "is not valid JSON"),
        ('{"tasks": [{}]}', "expected a task with a token"),
        ('{"tasks": [{"token": "<A>", "color": 1}]}', "expected a task with a token"),
        ('{"tasks": [{"token": "<A>", "result": "cake"}]}', "result must be one of"),
        ('{"tasks": [{"token": "A"}]}', "must stand in brackets"),
    ],
)
def test_a_damaged_file_of_tasks_is_refused(content, message, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "damaged")
    (folder / "florence_lab_tasks.json").write_text(content)
    with pytest.raises(CheckpointError, match=f"florence_lab_tasks.json.*{message}"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1412], "does not fit the tokens"),
        ([1412, 9999], "does not fit the tokens"),
        ([1412, -1], "does not fit the tokens"),
        ([1412, "a"], "trainable_token_indices"),
        (None, r"does not fit the tokens \[\]"),
    ],
)
def test_an_adapter_whose_tokens_do_not_fit_is_refused(indices, message, train, tmp_path):
    folder = shutil.copytree(train("lora"), tmp_path / "damaged")
    edit_json(folder / "adapter_config.json", trainable_token_indices=indices)
    with pytest.raises(CheckpointError, match=message):
        load(folder, device="cpu")


def test_an_adapter_with_the_tokenizer_of_another_model_is_refused(train, tmp_path):
    folder = shutil.copytree(train("lora"), tmp_path / "foreign")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    words = [word for word, id_ in vocab.items() if id_ in (300, 301)]
    vocab[words[0]], vocab[words[1]] = vocab[words[1]], vocab[words[0]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=r"does not have the token .* of the base model with the same id"):
        load(folder, device="cpu")


def test_a_new_token_starts_as_the_mean_of_its_pieces(checkpoint):
    model, processor = load_checkpoint(checkpoint)
    pieces = processor.tokenizer(VQA, add_special_tokens=False).input_ids
    expected = embedding_table(model)[pieces].mean(dim=0)
    number = len(processor.tokenizer)
    assert add_tokens(model, processor.tokenizer, [VQA, "a", VQA]) == [number, processor.tokenizer.get_vocab()["a"]]
    assert torch.equal(embedding_table(model)[number], expected)
    language = model.model.language_model
    for module in (model.lm_head, language.encoder.embed_tokens, language.decoder.embed_tokens):
        assert module.weight is embedding_table(model)


def test_a_padded_table_keeps_its_rows(checkpoint):
    model, processor = load_checkpoint(checkpoint)
    model.resize_token_embeddings(pad_to_multiple_of=64)
    rows = len(embedding_table(model))
    assert rows > len(processor.tokenizer)
    add_tokens(model, processor.tokenizer, [VQA])
    assert len(embedding_table(model)) == rows


def test_tokens_are_given_as_words_and_files(tmp_path):
    (tmp_path / "tokens.txt").write_text("<A1>\n<B1> [C]\n\n")
    arguments = SftArguments(new_special_tokens=("<DocVQA>", str(tmp_path / "tokens.txt"), "<A1>"))
    assert read_new_tokens(arguments) == ["<DocVQA>", "<A1>", "<B1>", "[C]"]
    assert read_new_tokens(SftArguments(new_special_tokens="<x>")) == ["<x>"]


def test_a_token_that_looks_misspelled_is_meant_here():
    assert read_new_tokens(SftArguments(new_special_tokens="<CAPTIONS>")) == ["<CAPTIONS>"]
    assert get_task("<CAPTIONS>") == Task("<CAPTIONS>")


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("<my token>", "'<my token>': a token is text without blanks"),
        ("<loc_7>", "Florence-2 has this token already"),
        ("</s>", "Florence-2 has this token already"),
        ("<od>", "Florence-2 has this token already"),
        ("<OD>", "the model never reads this token, as the prompt of <OD> is 'Locate the objects"),
        ("<caption>", "the model never reads this token, as the prompt of <CAPTION> is"),
        ("missing.txt", "the file cannot be read"),
    ],
)
def test_tokens_that_cannot_be_new_are_refused(token, message):
    with pytest.raises(ArgumentError, match=f"^--new_special_tokens .*{message}"):
        read_new_tokens(SftArguments(new_special_tokens=token))


def test_full_fine_tuning_of_a_frozen_language_model_has_no_new_tokens():
    with pytest.raises(ArgumentError, match="--new_special_tokens are part of the language model"):
        SftArguments(new_special_tokens=VQA, sft_type="full", freeze_llm=True)
