r"""Images per second of whole models, beside timm and Google's code.

  python -m benchmarks.models --models vit:S/16 swin:T/7 --batch_size=8
  python -m benchmarks.models --work=infer --google=/a/checkout

The work of every row is the same for all: a forward pass, or a step of
cross-entropy with AdamW and no clipping, on random images of 224 pixels that
are on the device, with 1,000 classes; float32 on a CPU, bfloat16 on a GPU.

  ours           the step of `vit_jax.step`, as the loop jits it
  timm           eager, with its fused attention and torch's fused AdamW
  timm compiled  the same after `torch.compile`
  google         github.com/google-research/vision_transformer, jitted; for
                 ViT and Mixer, given the path of a checkout

Each lives in a process of its own, as they name their packages alike, and they
take turns, so that what else the machine does hits all. The figures are
medians; `ours / x` is above 1 where ours is faster. timm and torch come with
requirements-parity.txt.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import rich.box
import rich.console
import rich.table

SIZE, CLASSES = 224, 1000
# Ours -> timm, google; None where it has no such model.
MODELS = {
  'vit:Ti/16': ('vit_tiny_patch16_224', 'Ti_16'),
  'vit:S/16': ('vit_small_patch16_224', 'S_16'),
  'vit:B/16': ('vit_base_patch16_224', 'B_16'),
  'vit:L/16': ('vit_large_patch16_224', 'L_16'),
  'mlp_mixer:B/16': ('mixer_b16_224', 'Mixer_B_16'),
  'swin:T/7': ('swin_tiny_patch4_window7_224', None),
}
DEFAULT = tuple(name for name in MODELS if name != 'vit:L/16')
# Of google: width, MLP, blocks, heads.
SIZES = {
  'Ti_16': (192, 768, 12, 3),
  'S_16': (384, 1536, 12, 6),
  'B_16': (768, 3072, 12, 12),
  'L_16': (1024, 4096, 24, 16),
}
Run = Callable[[], None]


def images(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Random images, uint8 (b, h, w, c), and labels (b,)."""
  rng = np.random.default_rng(0)
  shape = (batch_size, SIZE, SIZE, 3)
  image = rng.integers(256, size=shape, dtype=np.uint8)
  return image, rng.integers(CLASSES, size=batch_size, dtype=np.int32)


def ours(name: str, *, work: str, batch_size: int, **_) -> Run:
  """Our model, as an experiment."""
  import jax

  from configs import quickstart
  from vit_jax import experiment, sharding
  from vit_jax.step import make_init, make_step

  config = quickstart.get_config()
  config.duration = '1_000_000 steps'
  config.batch_size = config.eval_batch_size = batch_size
  config.ema = 0.0
  config.dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  model, _, variant = name.partition(':')
  config.model = {'name': model, 'variant': variant, 'num_classes': CLASSES}
  config.objective.mixup = 0.0
  config.optim.clip_norm = None
  config.transforms = config.preprocess = ({'name': 'resize', 'size': SIZE},)
  config.evals = {}
  config.checkpoint.best = ''
  built = experiment.build(config.to_dict())
  state = jax.jit(make_init(built))()
  image, label = images(batch_size)
  batch = {'image': image, 'label': label, 'mask': np.ones(len(label), 'f')}
  batch = sharding.put(batch, built.mesh)
  if work == 'infer':
    predict = jax.jit(experiment.make_predict(built.config, built.objective))
    return lambda: jax.block_until_ready(
      predict(state.params, state.state, batch).logits
    )
  step = jax.jit(make_step(built), donate_argnums=0)

  def train():
    nonlocal state
    state, scalars = step(state, batch)
    jax.block_until_ready((state, scalars))

  return train


def google(name: str, *, work: str, batch_size: int, path: str) -> Run:
  """Their model, from a checkout."""
  sys.path.insert(0, path)
  import jax
  import jax.numpy as jnp
  import optax

  dtype = jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16
  size = MODELS[name][1]
  if size.startswith('Mixer'):
    from vit_jax import models_mixer

    model = models_mixer.MlpMixer(
      patches=argparse.Namespace(size=(16, 16)),
      num_classes=CLASSES,
      num_blocks=12,
      hidden_dim=768,
      tokens_mlp_dim=384,
      channels_mlp_dim=3072,
    )
  else:
    from vit_jax import models_vit

    width, mlp_dim, depth, num_heads = SIZES[size]
    model = models_vit.VisionTransformer(
      num_classes=CLASSES,
      patches=argparse.Namespace(size=(16, 16)),
      transformer=dict(
        num_layers=depth,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
      ),
      hidden_size=width,
    )
  image, label = map(jnp.asarray, images(batch_size))

  def logits(params, image):
    image = (image / 127.5 - 1).astype(dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    out = model.apply({'params': params}, image, train=False)
    return out.astype(jnp.float32)

  def loss(params, image, label):
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits(params, image), label
    )
    return losses.mean()

  init = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))
  params = init()['params']
  if work == 'infer':
    predict = jax.jit(logits)
    return lambda: jax.block_until_ready(predict(params, image))
  tx = optax.adamw(1e-3, weight_decay=0.3)
  state = params, jax.jit(tx.init)(params)

  def update(state, image, label):
    params, opt_state = state
    value, grads = jax.value_and_grad(loss)(params, image, label)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), value

  step = jax.jit(update, donate_argnums=0)

  def train():
    nonlocal state
    state, value = step(state, image, label)
    jax.block_until_ready((state, value))

  return train


def timm(name: str, *, work: str, batch_size: int, compiled=False, **_) -> Run:
  """The model of timm."""
  import torch

  library = torch.library.Library('torchvision', 'FRAGMENT')
  if torch.version.cuda is None:
    # A torchvision built for CUDA fails beside a torch that is not, for these.
    for op in ('nms', 'qnms'):
      library.define(
        f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
      )
  import timm

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = timm.create_model(MODELS[name][0], num_classes=CLASSES).to(device)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-3, weight_decay=0.3, fused=True
  )
  run = torch.compile(model) if compiled else model
  image, label = images(batch_size)
  image = torch.from_numpy(image).to(device).permute(0, 3, 1, 2)
  label = torch.from_numpy(label).long().to(device)
  cast = torch.autocast(device, torch.bfloat16, enabled=device == 'cuda')

  def logits():
    return run(image.float().div(127.5).sub(1).contiguous())

  def infer():
    with torch.inference_mode(), cast:
      logits()

  def train():
    with cast:
      loss = torch.nn.functional.cross_entropy(logits(), label)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  model.train(work == 'train')
  chosen = infer if work == 'infer' else train

  def synchronised(library=library):  # The operators vanish with the library.
    chosen()
    if device == 'cuda':
      torch.cuda.synchronize()

  return synchronised


def timm_compiled(name: str, **options) -> Run:
  """The model of timm after `torch.compile`."""
  return timm(name, compiled=True, **options)


CONTENDERS = {
  'ours': ours,
  'timm': timm,
  'timm compiled': timm_compiled,
  'google': google,
}


def worker(connection: Connection, contender: str, name: str, options: dict):
  """Warms up, then answers each number of runs with their seconds."""
  run = CONTENDERS[contender](name, **options)
  for _ in range(2):
    run()
  connection.send('ready')
  while number := connection.recv():
    start = time.perf_counter()
    for _ in range(number):
      run()
    connection.send(time.perf_counter() - start)


def measure(
  name: str, contenders: list[str], *, rounds: int, seconds: float, **options
) -> dict[str, float]:
  """Median images per second of each contender."""
  context = multiprocessing.get_context('spawn')
  pipes, processes = {}, []
  for contender in contenders:
    pipes[contender], theirs = context.Pipe()
    args = (theirs, contender, name, options)
    processes.append(context.Process(target=worker, args=args, daemon=True))
    processes[-1].start()
    theirs.close()  # So that the end of the process ends the pipe.
    pipes[contender].recv()

  def ask(contender: str, number: int) -> float:
    pipes[contender].send(number)
    return pipes[contender].recv()

  # As many runs a turn as take some seconds.
  counts = {x: max(1, round(seconds / ask(x, 1))) for x in contenders}
  times = {contender: [] for contender in contenders}
  for _ in range(rounds):
    for contender, number in counts.items():
      times[contender].append(ask(contender, number) / number)
  for pipe in pipes.values():
    pipe.send(0)
  for process in processes:
    process.join()
  return {
    contender: options['batch_size'] / statistics.median(taken)
    for contender, taken in times.items()
  }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', nargs='+', choices=MODELS, default=DEFAULT)
  parser.add_argument('--work', choices=('infer', 'train'))
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=2.0, help='of a turn')
  parser.add_argument('--google', metavar='PATH', help='of a checkout')
  parser.add_argument(
    '--without', nargs='+', choices=CONTENDERS, default=(), help='leave out'
  )
  args = parser.parse_args()
  left_out = {*args.without, *([] if args.google else ['google'])}
  names = [name for name in CONTENDERS if name not in left_out]
  table = rich.table.Table(
    title=f'images/s at {SIZE} pixels, batches of {args.batch_size}',
    box=rich.box.SIMPLE,
  )
  table.add_column('model')
  table.add_column('work')
  for name in names:
    table.add_column(name, justify='right')
  for name in names[1:]:
    table.add_column(f'ours / {name}', justify='right')
  for model in args.models:
    has = [x for x in names if x != 'google' or MODELS[model][1]]
    for work in (args.work,) if args.work else ('infer', 'train'):
      speeds = measure(
        model,
        has,
        rounds=args.rounds,
        seconds=args.seconds,
        work=work,
        batch_size=args.batch_size,
        path=args.google,
      )
      figures = [f'{speeds[x]:.3g}' if x in speeds else '' for x in names]
      figures += [
        f'{speeds["ours"] / speeds[x]:.2f}' if x in speeds else ''
        for x in names[1:]
      ]
      table.add_row(model, work, *figures)
      print(model, work, speeds, file=sys.stderr, flush=True)
  rich.console.Console().print(table)


if __name__ == '__main__':
  main()
