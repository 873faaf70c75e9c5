"""The items on experiments of the NeurIPS paper checklist, answered from the study's own numbers.

What only authors know (claims, limitations, impact, licences of data) is left to them.
"""

import pandas as pd

from analysis.loading import Results
from analysis.statistics.significance import ALPHA
from analysis.tables.checklist import LEAST_SEEDS, Answer, Item


def neurips(results: Results) -> list[Item]:
    """The items, in the checklist's order."""
    return [_reproducible(results), _setting(results), _significance(results), _compute(results)]


def _reproducible(results: Results) -> Item:
    done = _done(results)
    versions = sorted(done["code_version"].dropna().unique())
    changed = [version for version in versions if "dirty" in version]
    answer: Answer = "yes" if len(versions) == 1 and not changed else "partly" if versions else "no"
    detail = (
        "`python -m study.reproduce` with this study's folder runs it again from its config.yaml and compares every "
        f"stage; code {', '.join(versions) or 'not recorded'}"
    )
    if changed:
        detail += ", with changes that no commit holds"
    elif len(versions) > 1:
        detail += ": its stages were made by several versions"
    return Item("Is everything disclosed that is needed to reproduce the results?", answer, detail)


def _setting(results: Results) -> Item:
    splits = f"{results.facts.source.title} to {results.facts.target.title}; splits by seed, test images seen once"
    settings = "all hyperparameters in config.yaml and, per stage, in stages.parquet"
    if results.trials is not None:
        chosen = f"chosen by validation accuracy in a search of {len(results.trials)} trials (trials.parquet)"
        return Item("Are all training and test details given?", "yes", f"{splits}; {settings}; {chosen}")
    if results.tuning is not None:
        settings += "; each net's best chosen by validation accuracy (tuning.parquet)"
    unknown = "how they were chosen is not recorded in a study of fixed settings: state it"
    return Item("Are all training and test details given?", "partly", f"{splits}; {settings}; {unknown}")


def _significance(results: Results) -> Item:
    count = len(results.seeds)
    answer: Answer = "yes" if count >= LEAST_SEEDS else "partly" if count > 1 else "no"
    detail = "one seed has no error bar"
    if count > 1:
        varies = "split, order of images, initialisation and dropout"
        detail = (
            f"{count} seeds, which vary {varies}; error bars are 95 % intervals of the mean (Student t, assumed "
            f"normal); differences are paired by seed, shown below p = {ALPHA} after Holm's correction"
        )
    return Item("Error bars, with what they vary and how they were made?", answer, detail)


def _compute(results: Results) -> Item:
    done = _done(results)
    hours = done["seconds"].sum() / 3600
    longest = done["seconds"].max() / 60 if len(done) else 0.0
    kinds = done[["processor", "device"]].fillna("").drop_duplicates()
    machines = [_machine(*row) for row in kinds.itertuples(index=False)]
    known = bool(machines) and all(machines) and done["seconds"].notna().all()
    memory = "memory is not recorded"
    detail = (
        f"{', '.join(sorted(filter(None, machines))) or 'machines not recorded'}; {len(done):,} stages, {hours:.2f} "
        f"hours of a slot in all, at most {longest:.1f} minutes each; {memory}; preliminary runs are not counted"
    )
    return Item("Compute resources per run and in total?", "partly" if known else "no", detail)


def _machine(processor: str, device: str) -> str:
    return " with ".join(name for name in (processor, device) if name not in ("", "cpu"))


def _done(results: Results) -> pd.DataFrame:
    return results.stages[results.stages["status"] == "done"]
