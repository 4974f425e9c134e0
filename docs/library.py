"""The library in twenty lines: two zoos of small CNNs, a generator between them, and its networks evaluated.

    pip install . && python docs/library.py

Rendered images, no download; about two minutes on two CPU cores, most of it compilation.
"""

import jax

import kernelgan as kg

source = kg.data.load("rendered", attributes=("black",), objects=("cat",), seed=0, train=2000, test=600)
pair = kg.split(source, "black", "cat", seed=0)  # quadrants; refuses a leak
network = kg.ConvNet(filters=(6, 16))
black = kg.train_zoo(network, pair.attribute, models=16, epochs=8, images_per_epoch=512, seed=0)
cat = kg.train_zoo(network, pair.object, models=16, epochs=8, images_per_epoch=512, seed=0)
parents = kg.Parents(black.params, cat.params)  # or kg.load_zoo("zoo.safetensors").params

generator = kg.generators.make("cyclegan", network, epochs=(40,))
fitted = kg.fit(generator, parents, seed=0)


def generate(parents: kg.Parents) -> dict:
    """New networks; `kg.evaluate` also asks for those of placebo parents."""
    return generator.generate(jax.random.key(0), fitted.state, parents, None)


networks = generate(parents)
evaluation = kg.evaluate(pair, parents, networks, again=generate, random_networks=64)  # tests, verdict
evaluation.show()
kg.save(networks["a2b"], "black_cat.safetensors")
