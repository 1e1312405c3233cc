"""The forms in which a model leaves, each written and read again.

A target is two functions and a text. `read` computes with what `write` wrote,
in the library that it is for where that is installed, so that an export can be
compared with the model it came from. Everything is in float32.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import numpy as np
import safetensors.numpy

from vit_jax.pretrained import (
  families,
  files,
  google_npz,
  torch_configs,
  torch_names,
)


class Subject(NamedTuple):
  """What is exported.

  Attributes:
    name: of the architecture, a key of `models.MODELS`.
    model: the module, for its fields.
    params: by path, see `pretrained`; positions are always among them.
    logits: (params by path, uint8 (b, h, w, c)) -> float32 (b, k).
    image_shape: (h, w, c).
    class_names: of the logits.
    preprocess: what is done to an image on the host, as in the config.
    normalize: {'mean', 'std'} of images in [0, 1].
  """

  name: str
  model: nn.Module
  params: dict[str, np.ndarray]
  logits: Callable[[Any, Any], jax.Array]
  image_shape: Sequence[int]
  class_names: Sequence[str]
  preprocess: Sequence[Mapping[str, Any]]
  normalize: Mapping[str, Any]


class Target(NamedTuple):
  """One form of a model on disk.

  Attributes:
    write: (subject, directory) -> None.
    read: (subject, directory, images uint8 (b, h, w, c)) -> who computed, and
      the logits (b, k).
    usage: how to load it, in Markdown.
  """

  write: Callable[[Subject, pathlib.Path], None]
  read: Callable[[Subject, pathlib.Path, np.ndarray], tuple[str, np.ndarray]]
  usage: str


# What the import of a library raises that is not there, or is there beside a
# torchvision that was built for another torch.
UNUSABLE = (ImportError, RuntimeError, AttributeError)


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a readable JSON file."""
  path.write_text(json.dumps(content, indent=2) + '\n')


def write_npz(subject: Subject, directory: pathlib.Path) -> None:
  """`model.npz` with the names of google-research/vision_transformer."""
  np.savez(directory / 'model.npz', **google_npz.from_ours(subject.params))


def read_npz(
  subject: Subject, directory: pathlib.Path, images: np.ndarray
) -> tuple[str, np.ndarray]:
  """Computes with the parameters in the file."""
  params = google_npz.to_ours(files.read(directory / 'model.npz'))
  return 'vit_jax', np.asarray(subject.logits(params, images))


def write_timm(subject: Subject, directory: pathlib.Path) -> None:
  """`model.safetensors` and `config.json` as on timm's hub."""
  counterpart = _counterpart(subject, families.TIMM, who='timm')
  content = torch_configs.timm_config(
    counterpart,
    image_shape=subject.image_shape,
    class_names=subject.class_names,
    preprocess=subject.preprocess,
    normalize=subject.normalize,
  )
  write_json(directory / 'config.json', content)
  write_safetensors(subject, directory, family=counterpart.family)


def read_timm(
  subject: Subject, directory: pathlib.Path, images: np.ndarray
) -> tuple[str, np.ndarray]:
  """Computes with timm, or without it with our model."""
  try:
    import timm
    import torch
  except UNUSABLE as error:
    return read_safetensors(subject, directory, images, why=f'timm: {error}')
  if subject.name == 'mlp_mixer':
    content = json.loads((directory / 'config.json').read_text())
    model = timm.models.MlpMixer(
      **content['model_args'], act_layer=timm.layers.GELUTanh
    )
    timm.models.load_checkpoint(model, str(directory / 'model.safetensors'))
  else:
    model = timm.create_model(f'local-dir:{directory}', pretrained=True)
  with torch.no_grad():
    logits = model.eval()(torch.from_numpy(normalized(subject, images)))
  return f'timm {timm.__version__}', logits.numpy()


def write_hf(subject: Subject, directory: pathlib.Path) -> None:
  """What `from_pretrained` of transformers opens."""
  counterpart = _counterpart(subject, families.HUGGING_FACE, who='transformers')
  content = torch_configs.hf_config(
    counterpart,
    image_shape=subject.image_shape,
    class_names=subject.class_names,
  )
  write_json(directory / 'config.json', content)
  preprocessor = torch_configs.hf_preprocessor(
    image_shape=subject.image_shape,
    preprocess=subject.preprocess,
    normalize=subject.normalize,
  )
  write_json(directory / 'preprocessor_config.json', preprocessor)
  write_safetensors(subject, directory, family=counterpart.family)


def read_hf(
  subject: Subject, directory: pathlib.Path, images: np.ndarray
) -> tuple[str, np.ndarray]:
  """Computes with transformers, or without it with our model."""
  try:
    import torch
    import transformers
    from transformers import AutoModelForImageClassification
  except UNUSABLE as error:
    why = f'transformers: {error}'
    return read_safetensors(subject, directory, images, why=why)
  model = AutoModelForImageClassification.from_pretrained(directory)
  with torch.no_grad():
    logits = model.eval()(torch.from_numpy(normalized(subject, images))).logits
  return f'transformers {transformers.__version__}', logits.numpy()


def _counterpart(
  subject: Subject, table: Mapping[str, Callable[..., Any]], *, who: str
) -> Any:
  """What another library has for our model.

  Raises:
    ValueError: if it has nothing.
  """
  if subject.name not in table:
    raise ValueError(
      f'There is no export of {subject.name!r} to {who}, only of '
      f'{", ".join(table)}: export to onnx or stablehlo.'
    )
  return table[subject.name](subject.model, size=tuple(subject.image_shape[:2]))


def write_safetensors(
  subject: Subject, directory: pathlib.Path, *, family: str
) -> None:
  """`model.safetensors` with the names of a family of `torch_names`."""
  # Not `save_file`, whose files only their owner may read.
  serialized = safetensors.numpy.save(
    torch_names.from_ours(subject.params, family=family),
    metadata={'format': 'pt'},
  )
  (directory / 'model.safetensors').write_bytes(serialized)


def read_safetensors(
  subject: Subject, directory: pathlib.Path, images: np.ndarray, *, why: str
) -> tuple[str, np.ndarray]:
  """Computes with our model, saying why not with another."""
  params = torch_names.to_ours(
    files.read(directory / 'model.safetensors'),
    num_heads=torch_names.heads_of(subject.params),
  )
  logits = np.asarray(subject.logits(params, images))
  return f'vit_jax (no {why})', logits


def normalized(subject: Subject, images: np.ndarray) -> np.ndarray:
  """float32 (b, c, h, w), as torch wants them."""
  mean, std = (
    np.asarray(subject.normalize[key], np.float32) for key in ('mean', 'std')
  )
  image = (images.astype(np.float32) / 255 - mean) / std
  return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def write_onnx(subject: Subject, directory: pathlib.Path) -> None:
  """`model.onnx`: image, uint8 (b, h, w, c) -> logits."""
  try:
    from vit_jax.pretrained import onnx_graph
  except ImportError as error:
    raise ValueError(
      f'{error}. Install it with: pip install -r requirements-export.txt'
    ) from error
  model = onnx_graph.build(
    lambda image: subject.logits(subject.params, image),
    subject.image_shape,
    metadata={
      'input': 'image: uint8 RGB (batch, height, width, channels), resized '
      'but not normalized; the graph normalizes it',
      'class_names': json.dumps(list(subject.class_names)),
      'preprocess': json.dumps(list(subject.preprocess)),
    },
  )
  onnx_graph.save(model, str(directory / 'model.onnx'))


def read_onnx(
  subject: Subject, directory: pathlib.Path, images: np.ndarray
) -> tuple[str, np.ndarray]:
  """Computes with onnxruntime, or without it with the slow reference."""
  path = str(directory / 'model.onnx')
  try:
    import onnxruntime
  except ImportError:
    import onnx.reference

    (logits,) = onnx.reference.ReferenceEvaluator(path).run(
      None, {'image': images}
    )
    return 'onnx.reference', logits
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  (logits,) = session.run(None, {'image': images})
  return f'onnxruntime {onnxruntime.__version__}', logits


def write_stablehlo(subject: Subject, directory: pathlib.Path) -> None:
  """`model.stablehlo`: the same, for CPU, CUDA and TPU."""
  (batch,) = jax.export.symbolic_shape('batch')
  exported = jax.export.export(
    jax.jit(lambda image: subject.logits(subject.params, image)),
    platforms=('cpu', 'cuda', 'tpu'),
  )(jax.ShapeDtypeStruct((batch, *subject.image_shape), np.uint8))
  (directory / 'model.stablehlo').write_bytes(exported.serialize())


def read_stablehlo(
  subject: Subject, directory: pathlib.Path, images: np.ndarray
) -> tuple[str, np.ndarray]:
  """Computes with nothing but the file and JAX."""
  serialized = (directory / 'model.stablehlo').read_bytes()
  function = jax.export.deserialize(bytearray(serialized))
  return f'jax {jax.__version__}', np.asarray(function.call(images))


TARGETS = {
  'npz': Target(
    write_npz,
    read_npz,
    """\
# A model for google-research/vision_transformer

`model.npz` has the parameters by the names of its published files:

    params = numpy.load('model.npz')
""",
  ),
  'timm': Target(
    write_timm,
    read_timm,
    """\
# A model for timm

    timm.create_model('local-dir:THIS_DIRECTORY', pretrained=True)

or, with `config = json.load(open('config.json'))`,

    model = timm.create_model(config['architecture'], **config['model_args'])
    model.load_state_dict(safetensors.torch.load_file('model.safetensors'))

A hybrid differs a little there: the epsilon of timm's group norms is 1e-5, not
1e-6. A Mixer is made by its class, for timm's names fix its size and its GELU:

    timm.models.MlpMixer(
      **config['model_args'], act_layer=timm.layers.GELUTanh
    )
""",
  ),
  'hf': Target(
    write_hf,
    read_hf,
    """\
# A model for transformers

    AutoModelForImageClassification.from_pretrained('THIS_DIRECTORY')
    AutoImageProcessor.from_pretrained('THIS_DIRECTORY')
""",
  ),
  'onnx': Target(
    write_onnx,
    read_onnx,
    """\
# A model for ONNX

    session = onnxruntime.InferenceSession('model.onnx')
    (logits,) = session.run(None, {'image': images})

`images` are uint8 (batch, height, width, channels), RGB, resized but not
normalized; any number of them.
""",
  ),
  'stablehlo': Target(
    write_stablehlo,
    read_stablehlo,
    """\
# A model for JAX, without its code

    exported = jax.export.deserialize(open('model.stablehlo', 'rb').read())
    logits = exported.call(images)

`images` are uint8 (batch, height, width, channels), RGB, resized but not
normalized; any number of them. Runs on CPU, CUDA and TPU.
""",
  ),
}
