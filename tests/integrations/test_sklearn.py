"""`PalamClassifier` as scikit-learn has its classifiers, on tiny models."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import tiny

from palam import score_labels
from palam.cli.main import run
from palam.errors import PalamError
from palam.training.config import TrainConfig
from palam.training.run import train

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from palam.integrations.sklearn import PalamClassifier

WORDS = tiny.TEXT["en"].split()
TEXTS = [" ".join(WORDS[start : start + 4]) for start in range(24)]
LABELS = ["sports", "politics", "health"] * 8


@pytest.fixture(scope="module")
def options(base_folder):
    return {
        "encoder": str(base_folder("bert")),
        "llm": str(base_folder("llama")),
        "epochs": 1,
        "device": "cpu",
        "dtype": "fp32",
    }


@pytest.fixture(scope="module")
def fitted(options):
    """A classifier of three labels; not to be changed."""
    return PalamClassifier(**options).fit(TEXTS, LABELS)


def table(path, texts, labels):
    pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
    return path


def test_it_is_what_train_makes_of_the_same_rows(options, fitted, tmp_path):
    file = table(tmp_path / "rows.csv", TEXTS, LABELS)
    model = train(TrainConfig.from_settings({**options, "file": str(file)}), tmp_path / "bridge")
    weights = model.bridge.state_dict()
    for name, weight in fitted.model_.bridge.state_dict().items():
        assert weight.equal(weights[name]), name
    results = json.loads((tmp_path / "bridge" / "results.json").read_text())
    assert fitted.results_["validation_accuracy"] == results["validation_accuracy"]


def test_probabilities(fitted):
    assert fitted.classes_.tolist() == ["health", "politics", "sports"]
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (24, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(TEXTS)), probabilities)
    predictions = fitted.predict(TEXTS)
    assert (fitted.classes_[probabilities.argmax(1)] == predictions).all()
    assert fitted.score(TEXTS, LABELS) == np.mean(predictions == np.array(LABELS))
    assert fitted.score(TEXTS[:2], predictions[:2], sample_weight=[1, 3]) == 1


@pytest.mark.parametrize("form", [tuple, pd.Series, np.array, lambda x: np.array(x, dtype=object)])
def test_texts_of_every_form(fitted, form):
    assert fitted.predict(form(TEXTS)).tolist() == fitted.predict(TEXTS).tolist()


def test_no_texts(fitted):
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 3)


def test_saved_and_loaded_it_predicts_the_same(fitted, options, tmp_path, capsys):
    fitted.save(tmp_path / "bridge")
    names = {path.name for path in (tmp_path / "bridge").iterdir()}
    assert names >= {"config.json", "model.safetensors", "settings.yaml", "results.json"}
    loaded = PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")
    assert (loaded.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    assert loaded.get_params() == fitted.get_params()
    assert loaded.results_ == fitted.results_
    loaded.save(tmp_path / "again")
    for name in ("README.md", "settings.yaml", "results.json", "log.jsonl", "model.safetensors"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "bridge" / name).read_bytes(), name
    arguments = ["classify", str(tmp_path / "bridge"), "--text", TEXTS[0], "--device", "cpu"]
    assert run([*arguments, "--dtype", "fp32"]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] == fitted.predict(TEXTS[:1])[0]


@pytest.mark.parametrize(
    ("label_type", "message"),
    [("tuple", "label_type is 'tuple'"), ([], "label_type is"), ("int", "not all of the type int")],
)
def test_labels_of_a_damaged_type_are_refused(fitted, tmp_path, label_type, message):
    fitted.save(tmp_path / "bridge")
    path = tmp_path / "bridge" / "config.json"
    config = json.loads(path.read_text())
    config["task"]["label_type"] = label_type
    path.write_text(json.dumps(config))
    with pytest.raises(PalamError, match=message):
        PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 10] * 4),
        [True, False, True] * 4,
        pd.Series(["b", "a", "c"] * 4, dtype="category"),
    ],
    ids=["int", "bool", "category"],
)
def test_labels_come_back_as_they_were_given(options, labels, tmp_path):
    classifier = PalamClassifier(**options, settings={"max_steps": 1}).fit(TEXTS[:12], labels)
    classifier.save(tmp_path / "bridge")
    loaded = PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")
    kind = type(np.asarray(labels).tolist()[0])
    for fitted in (classifier, loaded):
        assert fitted.classes_.tolist() == sorted(set(labels))
        assert {type(label) for label in fitted.predict(TEXTS).tolist()} == {kind}
    assert loaded.predict(TEXTS).tolist() == classifier.predict(TEXTS).tolist()
    assert loaded.get_params() == classifier.get_params()


def test_the_llm_answers_the_words_of_a_label(options, tmp_path):
    words = {0: "bad", 1: "good"}
    classifier = PalamClassifier(**options, label_words=words).fit(TEXTS, [0, 1] * 12)
    assert classifier.model_.config.task["labels"] == [["0", "bad"], ["1", "good"]]
    assert set(classifier.predict(TEXTS)) <= {0, 1}
    classifier.save(tmp_path / "bridge")
    loaded = PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")
    assert loaded.label_words == words


def test_a_trained_checkpoints_classes_are_sorted(options, tmp_path):
    labels = ["sports", "health", "politics"] * 8
    file = table(tmp_path / "rows.csv", TEXTS, labels)
    train(TrainConfig.from_settings({**options, "file": str(file)}), tmp_path / "bridge")
    loaded = PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")
    assert list(loaded.model_.config.trained_task.words_by_label) != sorted(set(labels))
    assert loaded.classes_.tolist() == sorted(set(labels))
    scores = score_labels(loaded.model_, TEXTS, loaded.classes_.tolist())
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), scores.double().softmax(1), atol=1e-6)
    assert loaded.predict(TEXTS).tolist() == loaded.classes_[scores.argmax(1)].tolist()
    pickled = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_allclose(pickled.predict_proba(TEXTS), loaded.predict_proba(TEXTS), atol=1e-6)


def test_a_checkpoint_on_the_hub_has_its_record(options, fitted, tmp_path, monkeypatch):
    """The hub's cache, as its library lays it out."""
    cache = tmp_path / "models--org--topics"
    fitted.save(cache / "snapshots" / "0a1b")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0a1b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = PalamClassifier.load("org/topics", device="cpu", dtype="fp32")
    assert loaded.get_params() == {**fitted.get_params(), "settings": None}
    assert loaded.results_ == fitted.results_


def test_parameters_stay_as_given_and_are_cloned(options):
    fusion_options = {"rank": np.int64(4)}
    classifier = PalamClassifier(fusion="transformer_softmax", fusion_options=fusion_options)
    assert classifier.fusion_options is fusion_options
    assert classifier.get_params()["fusion"] == "transformer_softmax"
    copy = clone(classifier.set_params(lr=0.5))
    assert copy.lr == 0.5
    assert copy.fusion_options == fusion_options
    assert "fusion='transformer_softmax'" in repr(classifier)


def test_the_applicable_checks_of_scikit_learn(options):
    classifier = PalamClassifier(**options)
    with pytest.warns(estimator_checks.SkipTestWarning):  # the others fit tables of numbers
        results = estimator_checks.check_estimator(classifier)
    assert len(results) >= 1
    for check in (
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
    ):
        check("PalamClassifier", classifier)


def test_fitting_and_predicting_change_no_parameter(options):
    classifier = PalamClassifier(**options, settings={"max_steps": 1})
    before = classifier.get_params()
    classifier.fit(TEXTS, LABELS)
    fitted = dict(vars(classifier))
    classifier.predict(TEXTS)
    assert classifier.get_params() == before
    assert vars(classifier) == fitted
    added = vars(classifier).keys() - before.keys()
    assert all(name.endswith("_") for name in added)


def test_in_cross_validation_grid_search_and_a_pipeline(options):
    classifier = PalamClassifier(**options, settings={"max_steps": 1})
    scores = cross_val_score(classifier, pd.Series(TEXTS), LABELS, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    shout = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    grid = {"palamclassifier__lr": np.array([1e-2])}
    search = GridSearchCV(make_pipeline(shout, classifier), grid, cv=2)
    search.fit(TEXTS, LABELS)
    assert search.best_estimator_[1].lr == 1e-2
    assert set(search.predict(TEXTS)) <= set(LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_the_seed(options, fitted):
    def weight(seed):
        settings = {"max_steps": 1}
        classifier = PalamClassifier(**options, settings=settings, random_state=seed)
        return next(classifier.fit(TEXTS, LABELS).model_.bridge.parameters()).sum().item()

    drawn = np.random.RandomState(3).randint(2**31 - 1)
    assert weight(drawn) == weight(np.random.RandomState(3))
    assert weight(np.int64(drawn)) != weight(4)


def test_languages_for_an_encoder_that_must_be_told(options, base_folder):
    nllb = {**options, "encoder": str(base_folder("nllb")), "settings": {"max_steps": 1}}
    classifier = PalamClassifier(**nllb).fit(TEXTS, LABELS)
    tamil = [tiny.TEXT["ta"]] * 2
    assert classifier.predict_proba(tamil, "ta").shape == (2, 3)
    told = classifier.predict_proba(tamil, ["ta", "si"])
    np.testing.assert_allclose(told[0], classifier.predict_proba(tamil, "ta")[0], rtol=1e-5)
    assert not np.allclose(told[0], told[1])
    with pytest.raises(PalamError, match="2 texts and 1 languages"):
        classifier.predict(tamil, ["ta"])


def test_a_fitted_one_can_be_pickled(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    assert (copy.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()


@pytest.mark.parametrize(
    ("parameters", "texts", "labels", "message"),
    [
        ({"fusion": "no"}, TEXTS, LABELS, "fusion"),
        ({"lr": -1}, TEXTS, LABELS, "lr is -1"),
        ({"settings": {"lr": 1}}, TEXTS, LABELS, "settings holds 'lr'"),
        ({"settings": {"seed": 1}}, TEXTS, LABELS, "settings holds 'seed'"),
        ({"settings": {"no": 1}}, TEXTS, LABELS, "no setting 'no'"),
        ({"label_words": {"sports": "x"}}, TEXTS, LABELS, "no words for the label 'health'"),
        (
            {"label_words": {"sports": 1, "health": "x", "politics": "y"}},
            TEXTS,
            LABELS,
            "has 1 for 'sports', which is no text",
        ),
        (
            {"label_words": {"sports": "x", "health": "x", "politics": "y"}},
            TEXTS,
            LABELS,
            "has 'x' for 2 labels; each needs its own",
        ),
        ({}, TEXTS, LABELS[:-1], "24 texts and labels of shape"),
        ({}, TEXTS, [*LABELS[:-1], None], "NoneType and str"),
        ({}, TEXTS, [*LABELS[:-1], 1], "int and str"),
        ({}, TEXTS, [0.5, 1.25, 3.5] * 8, "continuous"),
        ({}, TEXTS, ["a"] * 24, "every text has the label 'a'"),
        ({}, [*TEXTS[:-1], None], LABELS, "row 23 holds None"),
        ({}, [*TEXTS[:-1], 1.5], LABELS, "row 23 holds 1.5"),
        ({}, "text", LABELS, "not one string"),
        ({}, [], [], "no texts"),
        ({}, TEXTS[:1] * 24, LABELS, "too few to hold some out"),
    ],
)
def test_a_mistake_is_one_line(options, parameters, texts, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        PalamClassifier(**{**options, **parameters}).fit(texts, labels)
    assert "\n" not in str(caught.value)


def test_before_fitting(options, tmp_path):
    classifier = PalamClassifier(**options)
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)
    with pytest.raises(NotFittedError):
        classifier.save(tmp_path / "bridge")
    assert not (tmp_path / "bridge").exists()


def test_a_checkpoint_without_labels_is_no_classifier(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path / "bridge")
    with pytest.raises(PalamError, match="it is no classifier"):
        PalamClassifier.load(tmp_path / "bridge", device="cpu", dtype="fp32")
