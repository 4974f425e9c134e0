"""The library in twenty lines: two zoos of small CNNs, composed by least squares, and the result evaluated.

    pip install . && python docs/library.py

Rendered images, no download; about two minutes on two idle CPU cores.
"""

import kernelgan as kg

source = kg.data.load("rendered", attributes=("black",), objects=("cat",), seed=0, train=12000, test=600)
pair = kg.split(source, "black", "cat", seed=0)  # quadrants; refuses a leak
network = kg.ConvNet(filters=(6, 16))
training = {"epochs": 16, "images_per_epoch": 2560, "batch_size": 64, "learning_rate": 0.004, "decay": True}
black = kg.train_zoo(network, pair.attribute, models=8, seed=0, **training)
cat = kg.train_zoo(network, pair.object, models=8, seed=0, **training)
parents = kg.Parents(black.params, cat.params)  # or kg.load_zoo("zoo.safetensors").params


def generate(parents: kg.Parents) -> dict:
    """New networks, from weights alone; `kg.evaluate` also asks for those of placebo parents."""
    return {"composed": kg.compose(*parents)}


networks = generate(parents)
evaluation = kg.evaluate(pair, parents, networks, again=generate, random_networks=64)  # tests, verdict
evaluation.show()
kg.save(networks["composed"], "black_cat.safetensors")
