"""Stopping the training of a fine-tuned encoder, as Ctrl-C does."""

from palam.bench.baselines.finetune_checkpoints import FinetuneTrainer

_plain_step = FinetuneTrainer.training_step


def stop_finetuning(monkeypatch, *, after):
    """Let the first step after so many of all runs be stopped; None lets all be done.

    Returns:
        A list to which the number of each step that is begun is added.
    """
    begun = []

    def step(trainer, *arguments, **options):
        begun.append(trainer.state.global_step)
        if len(begun) - 1 == after:
            raise KeyboardInterrupt
        return _plain_step(trainer, *arguments, **options)

    monkeypatch.setattr(FinetuneTrainer, "training_step", step)
    return begun
