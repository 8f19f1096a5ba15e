"""Compare heads on parquet files of Hugging Face that lie on this disk; some of their rows are chosen first.

$ pip install datasets
$ python examples/hf_parquet.py photos/train.parquet photos/test.parquet
gap 71.2 % (68.0 to 74.4), of 3 trials
gem 72.0 % (68.9 to 75.1), of 3 trials
gem and gap do not differ detectably.
"""

import sys

import datasets

import gapstone as gs


def main(train: str, test: str) -> None:
    """Compare two heads on the images of `train`, those of class 0 to 4 alone, tested on those of `test`."""
    files = {"train": train, "test": test}
    data = datasets.load_dataset("parquet", data_files=files).filter(lambda label: label < 5, input_columns="label")
    # gapstone alone would read the files, too: gs.compare("photos/")
    result = gs.compare(data, heads=["gap", "gem"], seeds=3, epochs=3, quick=True, progress=False)
    for head in result:
        print(head.name, head.accuracy)
    print(result.verdict)


if __name__ == "__main__":
    main(*sys.argv[1:])
