"""Trains a small network that tells malignant from benign tumours. Plain PyTorch: reads CSV files, writes model.safetensors and scaler.json."""

import argparse
import array
import csv
import json
import pathlib
import struct
import time

import torch

TARGET = "malignant"


def main():
    options = parse_options()
    torch.manual_seed(options.seed)
    # One thread: as fast for a table of this size, and the same bytes on every machine.
    torch.set_num_threads(1)

    columns, rows = read_tables(options.data)
    table = torch.tensor(rows, dtype=torch.float64)
    features, labels = table[:, :-1], table[:, -1:].float()
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-12)
    inputs = ((features - mean) / deviation).float()

    network = torch.nn.Sequential(torch.nn.Linear(len(columns), options.hidden), torch.nn.ReLU(), torch.nn.Linear(options.hidden, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    started = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        loss, accuracy = train_epoch(network, optimizer, inputs, labels, options.batch)
        report(options.metrics, {"epoch": epoch, "loss": loss, "accuracy": accuracy})
        print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}, {time.monotonic() - started:.1f} s", flush=True)

    folder = pathlib.Path(options.model)
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / "model.safetensors", network.state_dict())
    scaler = {"columns": columns, "target": TARGET, "mean": mean.tolist(), "deviation": deviation.tolist()}
    (folder / "scaler.json").write_text(json.dumps(scaler, indent=1) + "\n")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, nargs="+", help="folders; every .csv file below them is read")
    parser.add_argument("--model", required=True, help="folder for the result")
    parser.add_argument("--metrics", help="file for one JSON object per epoch")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def read_tables(folders):
    """Rows of numbers of all tables, the target last; the tables must agree on their columns."""
    columns, rows = None, []
    for path in sorted(path for folder in folders for path in pathlib.Path(folder).rglob("*.csv")):
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            found = [name for name in reader.fieldnames or [] if name != TARGET]
            if TARGET not in (reader.fieldnames or []) or (columns is not None and found != columns):
                raise ValueError(f"{path} has other columns than expected")
            columns = found
            rows += [[float(row[name]) for name in [*columns, TARGET]] for row in reader]
    if not rows:
        raise ValueError("no rows found")
    return columns, rows


def train_epoch(network, optimizer, inputs, labels, batch):
    total, right = 0.0, 0
    for chosen in torch.randperm(len(inputs)).split(batch):
        optimizer.zero_grad()
        output = network(inputs[chosen])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output, labels[chosen])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)
        right += ((output > 0) == (labels[chosen] > 0.5)).sum().item()
    return total / len(inputs), right / len(inputs)


def report(path, values):
    if path is not None:
        with open(path, "a") as file:
            file.write(json.dumps(values) + "\n")


def save_safetensors(path, tensors):
    """The format is a length, a JSON header and the numbers; no package is needed for it."""
    header, parts, end = {}, [], 0
    for name, tensor in tensors.items():
        part = array.array("f", tensor.detach().float().flatten().tolist()).tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + len(part)]}
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


if __name__ == "__main__":
    main()
