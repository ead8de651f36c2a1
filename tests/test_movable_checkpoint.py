"""The best checkpoint stays the best when a run directory has been moved."""

from __future__ import annotations

from pathlib import Path

import torch

from hicmae.training.movable_checkpoint import MovableCheckpoint


def test_a_moved_run_remembers_its_best_score(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    before = MovableCheckpoint(old, filename="best", monitor="val/uar", mode="max")
    before.best_model_path = before.kth_best_model_path = str(old / "best.ckpt")
    before.best_model_score = before.kth_value = torch.tensor(0.75)
    before.best_k_models = {str(old / "best.ckpt"): torch.tensor(0.75)}
    after = MovableCheckpoint(new, filename="best", monitor="val/uar", mode="max")
    after.load_state_dict(before.state_dict())
    assert after.best_model_score == 0.75
    assert after.best_model_path == after.kth_best_model_path == str(new / "best.ckpt")
    assert after.best_k_models == {str(new / "best.ckpt"): torch.tensor(0.75)}
    assert after.last_model_path == ""
