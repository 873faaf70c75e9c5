"""Bad input: one screen that names file, key and remedy, before anything starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from study.ablation import main
from study.config import ConfigError, StudyConfig, as_yaml, list_presets, load_config, read_config
from tests.conftest import TINY


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("transfr.tau=2", ["transfr.tau", "did you mean 'transfer.tau'"]),
        ("transfer.tua=2", ["transfer.tua", "did you mean 'transfer.tau'"]),
        ("transfer.tau=-1", ["transfer.tau", "greater than 0", "-1"]),
        ("transfer.tau=.nan", ["transfer.tau", "finite"]),
        ("transfer.tau=warm", ["transfer.tau", "number", "warm"]),
        ("transfer.lambda=-0.5", ["transfer.lambda", "greater than or equal to 0"]),
        ("transfer.n_m=9", ["transfer.n_m", "N = 8", "give 0 to 8"]),
        ("transfer.standard_n_m=9", ["transfer.standard_n_m", "N = 8", "give 0 to 8"]),
        ("target.data.retrain_on_validation=true", ["needs neuron_prune.steps", "cannot tell when"]),
        (
            "axes={more: [{target.data.retrain_on_validation: true}]}",
            ["axes.more", "cannot vary", "chosen by validation"],
        ),
        ("neuron_prune.steps=99", ["neuron_prune.steps", "is 99", "give 1 to 14"]),
        ("transfer.n_e=8", ["transfer.n_e", "N = 8", "give 1 to 7"]),
        ("transfer.n_e=0", ["transfer.n_e", "greater than or equal to 1"]),
        ("target_prune.keep=[0.3,1.2]", ["target_prune.keep", "less than 1", "1.2"]),
        ("target_prune.keep=[0.1,0.2]", ["target_prune.keep", "must decrease, but 0.2 follows 0.1"]),
        (
            "target_prune.keep=[0.9,0.2,0.1,0.025]",
            ["target_prune.keep", "Hybrid-TransferNet keeps 0.45", "start below"],
        ),
        ("target_prune.named=[0.123]", ["target_prune", "0.123", "not in keep"]),
        ("source.prune.keep=0", ["source.prune.keep", "greater than 0"]),
        ("source.prune.keep=han-lenet", ["source.prune.keep", "han-lenet", "han-alexnet"]),
        ("source.prune.keep={conv1: 0.5}", ["source.prune.keep", "conv2"]),
        ("source.prune.keep=han-vgg16", ["source.prune.keep", "conv1, conv2"]),
        ("source.prune.scope=global", ["source.prune", "takes one share"]),
        ("source.prune.steps=0", ["source.prune.steps"]),
        ("neuron_prune.neurons_per_step=192", ["neuron_prune.neurons_per_step", "less than 192"]),
        ("network=small_alexnt", ["network", "did you mean 'small_alexnet'"]),
        ("target.data.name=digit8", ["target.data.name", "did you mean 'digits8'"]),
        ("target.data.train_per_class=2000", ["target.data", "digits8", "2000"]),
        ("target.data.train_per_class=null", ["target.data", "train_per_class or val_per_class"]),
        ("target.data.name=indoor67", ["target.data", "set data.root", "STUDY_DATA_ROOT", "Where to get it"]),
        ("target.data={name: indoor67, path: /nowhere}", ["target.data", "no folder /nowhere", "Where to get it"]),
        ("target.data={name: 'tests.own:cifar'}", ["target.data", "tests.own has no function cifar"]),
        ("target.data.views=random", ["target.data.views", "transfer.live=true", "views=ten"]),
        ("target.data.views=tne", ["target.data.views", "'centre', 'ten', 'random' or 'resized'"]),
        ("network='torchvision:resnet18?input=[[['", ["network", "the network's input is not valid YAML"]),
        ("network=vgg16", ["network", "takes 3 x 224 x 224", "1 x 8 x 8"]),
        ("network='tests.own:rbg'", ["network", "did you mean 'rgb'?"]),
        ("source.train=null", ["source", "give train, or weights to load"]),
        ("source.weights.file=nowhere.pth", ["source.weights.file", "there is no file", "nowhere.pth"]),
        ("source.weights={fil: a.pth}", ["source.weights.fil", "did you mean 'source.weights.file'"]),
        ("source.weights.file='torchvision:AlexNet_Weights.IMAGENET'", ["source.weights", "did you mean"]),
        ("published=Flower", ["published", "Flower102"]),
        ("ablations=[two-stream]", ["ablations", "at least two streams"]),
        ("data.rot=/data", ["data.rot", "did you mean 'data.root'"]),
        ("ablations=[papers]", ["ablations", "did you mean 'paper'"]),
        ("seeds=0", ["seeds", "greater than or equal to 1"]),
        ("seeds=[1,1]", ["seeds", "once"]),
        ("transfer.train.epochs=0", ["transfer.train.epochs"]),
        ("transfer=3", ["transfer"]),
        ("transfer", ["key.sub=value"]),
        ("transfer.tau=[", ["YAML"]),
        ("title.more=1", ["title.more", "unknown key"]),
        ("source.prune.keep.conv1=0.5", ["source.prune.keep.conv1", "override source.prune.keep as a whole"]),
    ],
)
def test_bad_overrides(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", [override])
    message = str(caught.value)
    for word in [*words, f"--set {override}"]:
        assert word in message, message
    assert len(message.splitlines()) < 20


LAUGHS = "a0: &a0 [" + "1," * 10 + "]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 10}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "expected the node content"),
        ("&x [*x]", "an alias contains itself"),
        ("[" * 5000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("9" * 5000, "4300 digits"),
        (f"[{'1,' * 200_000}]", "longer than 200,000 characters"),
        (LAUGHS, "more than 100,000 values"),
        ("a\0b", "special characters are not allowed"),
    ],
)
def test_what_is_no_configuration_is_said_on_one_screen(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text if text == LAUGHS else f"transfer: {text}")
    for preset, overrides in ((str(path), []), ("digits", [f"transfer.tau={text}"])):
        with pytest.raises(ConfigError) as caught:
            load_config(preset, overrides)
        assert "not valid YAML" in str(caught.value) and words in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["transfer.train.epochs", "source.seed", "seeds", "target_prune.retrain.batch_size"])
def test_whole_numbers_have_64_bits(key: str) -> None:
    value = [0, 10**21] if key == "seeds" else 10**21
    for overrides in ([f"{key}={value}"], {key: value}):
        with pytest.raises(ConfigError, match=rf"(?s){key}.*64 bits"):
            load_config("digits", overrides)


def test_numbers_are_those_of_yaml_1_2() -> None:
    config = load_config("digits", ["source.prune.keep=4e-1", "transfer.train.learning_rate=1E-3"])
    assert config.source.prune.keep == 0.4 and config.transfer.train.learning_rate == 0.001


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**TINY, "tramsfer": {"tau": 4}}))
    with pytest.raises(ConfigError, match=r"(?s)tramsfer.*did you mean 'transfer'.*mine\.yaml"):
        load_config(str(path))
    path.write_text("transfer: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml is not valid YAML"):
        load_config(str(path))
    path.write_text("just text")
    with pytest.raises(ConfigError, match="is no preset"):
        load_config(str(path))


def test_an_override_does_not_reach_other_users_of_an_anchor(tiny_preset: Path) -> None:
    assert "*id" in tiny_preset.read_text()
    config = load_config(str(tiny_preset), ["transfer.train.epochs=7"])
    assert config.source.train is not None
    assert (config.transfer.train.epochs, config.source.train.epochs) == (7, 2)


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", ["transfer.tau=-1", "neuron_prune.tolerance=-2"])
    assert "transfer.tau" in str(caught.value) and "neuron_prune.tolerance" in str(caught.value)


def test_a_stored_configuration_may_hold_a_retired_key_that_changed_nothing(tmp_path: Path) -> None:
    text = as_yaml(load_config("digits"))
    old = tmp_path / "old.yaml"
    old.write_text(text.replace("resources:\n", "resources:\n  fused: 1\n"))
    assert as_yaml(load_config(str(old))) == text
    old.write_text(text.replace("resources:\n", "resources:\n  fused: 8\n"))
    with pytest.raises(ConfigError, match="unknown key"):
        load_config(str(old))


def test_unknown_presets() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_config("digit")
    with pytest.raises(ConfigError, match="no preset file"):
        load_config("nowhere.yaml")


def test_every_preset_loads_and_round_trips(tmp_path: Path) -> None:
    for name in list_presets():
        config = read_config(name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
        assert read_config(str(path)) == config


@given(tau=st.floats(0.01, 100), n_m=st.integers(0, 8), n_e=st.integers(1, 7), weight=st.floats(0, 10))
def test_good_values_are_taken_as_they_are(tau: float, n_m: int, n_e: int, weight: float) -> None:
    keep = 0.01
    config = load_config(
        "digits",
        [
            f"transfer.tau={tau}",
            f"transfer.lambda={weight}",
            f"transfer.n_m={n_m}",
            f"transfer.n_e={n_e}",
            f"target_prune.keep=[{keep}]",
            f"target_prune.named=[{keep}]",
        ],
    )
    transfer = config.transfer
    assert (transfer.tau, transfer.lambda_, transfer.n_m, transfer.n_e) == (tau, weight, n_m, n_e)


def test_two_named_overrides_of_one_branch(tiny_config: StudyConfig) -> None:
    config = load_config("digits", ["transfer.tau=2", "transfer.train.epochs=7"])
    assert (config.transfer.tau, config.transfer.train.epochs, config.transfer.n_m) == (2.0, 7, 2)


def test_the_command_ends_with_one_screen_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for arguments, words in (
        (["--preset", "digit"], "did you mean 'digits'"),
        (["--set", "transfer.n_e=8"], "give 1 to 7"),
        (["--storage", str(blocked / "results")], f"cannot be a folder: {blocked} is a file"),
        (["--storage", "ftp://host/results"], "give a folder, or a URI such as s3://bucket/prefix"),
        (["--storage", "s3://me:secret@bucket/results"], "put credentials into the environment"),
        (["--slots=-1"], "not a number from 0 up"),
        (["--name", "a/b"], "without slashes"),
        (["--name", "a\nb"], "without control characters"),
    ):
        try:
            status = main(["--storage", str(tmp_path / "results"), *arguments])
        except SystemExit as refused:  # by argparse
            status = int(refused.code or 0)
        said = capsys.readouterr().err
        assert status == 2 and words in said
        assert len(said.splitlines()) < 20
    assert not (tmp_path / "results").exists()


def test_presets_are_listed_by_a_process() -> None:
    command = [sys.executable, "-m", "study.ablation", "--list-presets"]
    assert "digits" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", ["os:getcwd", "builtins:dict", "tests.own:rgb"])
def test_a_function_that_makes_no_data_set_is_told_on_one_screen(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a data set is a function of its configuration") as told:
        load_config("digits", [f"target.data.name={name}"])
    assert name in str(told.value) and len(str(told.value).splitlines()) < 6


def test_what_is_no_data_set_is_told_by_its_type() -> None:
    with pytest.raises(ConfigError, match=r"tests\.own:no_data returns list"):
        load_config("digits", ["target.data.name=tests.own:no_data"])


def test_an_option_is_not_abbreviated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # --seed for --seeds would start a study of three seeds where one was meant.
    with pytest.raises(SystemExit) as end:
        main(["--seed", "3", "--storage", str(tmp_path)])
    assert end.value.code == 2 and "unrecognized arguments: --seed 3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_key_without_its_section_is_known() -> None:
    with pytest.raises(ConfigError, match=r"tau: unknown key: did you mean 'transfer.tau' or 'search.tau'\?"):
        load_config("digits", ["tau=2"])


def test_axes_are_listed_without_the_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDY_DATA_ROOT", raising=False)
    assert main(["--preset", "indoor67", "--list-axes", "--json"]) == 0
    axes = json.loads(capsys.readouterr().out)["choices"]
    assert axes["tau"] == ["tau = 1", "tau = 2", "tau = 4", "tau = 8", "tau = 16"]
    assert axes["source-schedule"] == ["known once the data is on this machine"]
