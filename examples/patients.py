"""Several images of each patient, judged by AUROC: python examples/patients.py scans.csv

The table has the columns path, label and patient. Images of one patient never lie on both sides of a split, and
intervals are for other patients.
"""

import sys

import gapstone as gs

heads = ["gap", "gmp", "attention"]
result = gs.compare(sys.argv[1], heads=heads, groups="patient", metric="auroc", out="runs/patients")
print(result)
for head in result:
    print(f"{head.name}: AUROC {head.score.short()}, balanced accuracy {head.metrics['balanced_accuracy'].short()}")
print(result.predictions("gap").groupby("label")["correct"].mean())
result.plot("pairs").savefig("runs/patients/auroc.svg")
