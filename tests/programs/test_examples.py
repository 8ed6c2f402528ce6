"""The notebooks in examples/ run from top to bottom, and say what they promise."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient


def outputs(name):
    """What the notebook prints when it is executed."""
    notebook = nbformat.read(ROOT / "examples" / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without
    where = {"metadata": {"path": str(ROOT / "examples")}}
    done = NotebookClient(notebook, timeout=900, resources=where).execute()
    printed = [out.get("text", "") for cell in done.cells for out in cell.get("outputs", [])]
    return "".join(printed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_files_end_in_a_table_and_a_prediction():
    said = outputs("own_folder.ipynb")
    assert said.count("| Midas |") == said.count("| Joint |") + 1  # compared with Joint
    assert "(3) |" in said and "report-" in said
    assert "'fused'" in said.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_diagnosis_of_another_model_is_evaluates():
    said = outputs("what_does_it_listen_to.ipynb")
    agreed = int(said.splitlines()[-1].removesuffix(" numbers agree"))
    printed = [line.split() for line in said.splitlines()]
    assert agreed == sum(len(p) == 2 and not p[0].startswith("test/") for p in printed) > 8
