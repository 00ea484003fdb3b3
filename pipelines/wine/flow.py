"""Choose a classifier of wines, as any Metaflow user writes it: ``PYTHONPATH=. python pipelines/wine/flow.py run``."""

import tempfile
from pathlib import Path

from metaflow import FlowSpec, JSONType, Parameter, step


class WineFlow(FlowSpec):
    """Choose how strongly a classifier of wines is regularised; fit it on the rows that are not held out."""

    strengths = Parameter("strengths", type=JSONType, default="[0.01, 0.1, 1.0]", help="values of C to try")
    held_out = Parameter("held-out", default=0.3, help="the part of the rows that no model sees")
    seed = Parameter("seed", default=0, help="of the split and the folds")

    @step
    def start(self):
        """Split the 178 wines, and try the strengths side by side."""
        import polars as pl
        from sklearn.datasets import load_wine
        from sklearn.model_selection import train_test_split

        frame = pl.from_pandas(load_wine(as_frame=True).frame)
        frame = frame.rename({"target": "cultivar", "od280/od315_of_diluted_wines": "od280_od315"})
        self.train, self.test = train_test_split(
            frame, test_size=self.held_out, random_state=self.seed, stratify=frame["cultivar"]
        )
        self.next(self.measure, foreach="strengths")

    @step
    def measure(self):
        """Measure one strength by five folds of the training rows."""
        from sklearn.model_selection import StratifiedKFold, cross_val_score

        from components.train_sklearn import fit, table

        self.strength = self.input
        fitted = fit.fit(self.train, "cultivar", "logistic_regression", {"C": self.strength}, self.seed)
        folds = StratifiedKFold(5, shuffle=True, random_state=self.seed)
        features, truth = table.features(self.train.drop("cultivar")), self.train["cultivar"].to_numpy()
        self.accuracy = float(cross_val_score(fitted, features, truth, cv=folds).mean())
        self.fitted = fitted
        self.next(self.choose)

    @step
    def choose(self, inputs):
        """Keep the best, the most strongly regularised among equals, as files that need no pickle."""
        from components.train_sklearn import export

        best = max(inputs, key=lambda i: (i.accuracy, -i.strength))
        self.merge_artifacts(inputs, include=["train", "test"])
        self.strength, self.accuracy = best.strength, best.accuracy
        self.tried = {str(i.strength): i.accuracy for i in inputs}
        with tempfile.TemporaryDirectory() as folder:
            export.write(best.fitted, self.train.drop("cultivar"), Path(folder, "model"))
            self.model = {f.name: f.read_bytes() for f in Path(folder, "model").iterdir()}
        self.next(self.end)

    @step
    def end(self):
        """Say what was chosen."""
        print(f"C = {self.strength}: accuracy {self.accuracy:.4f} on the folds")


if __name__ == "__main__":
    WineFlow()
