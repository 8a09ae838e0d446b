from __future__ import annotations

from transferlib.report.glossary import Glossary


def words(glossary: Glossary, text: str) -> list[str]:
    return [term.word for term in glossary.first(text)]


def test_a_term_is_explained_where_it_first_stands_and_not_again() -> None:
    glossary = Glossary()
    assert words(glossary, "With three seeds, should they be trained again") == ["Seed", "If trained again"]
    assert words(glossary, "seeds and ECE") == ["ECE"]


def test_a_name_of_an_arm_calls_for_the_word_arm() -> None:
    assert words(Glossary(), "resnet18-last_layers was highest") == ["Arm"]


def test_words_inside_other_words_call_for_nothing() -> None:
    assert words(Glossary(), "harmless checkpoints proceeded") == []
