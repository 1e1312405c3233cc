import os
import re
import subprocess
import sys

import jax
import pytest
from jax.experimental import topologies

from vit_jax import chips, data, hlo, memory
from vit_jax.tools import command, estimate, grey
from vit_jax.tools.plan import main as plan_main
from vit_jax.tools.work import plan

CHIP = chips.Chip(100e12, 16 * memory.GIB, 1e12, 0.2e12)
SMALL = (
  *('--config=configs/quickstart.py', '--config.batch_size=16'),
  *('--config.model.width=16', '--config.model.depth=1'),
  *('--config.data.train=digits:train[:32]', '--config.augment=()'),
)


def made(*, flops=50e12, total=8, sent=0.0, limit=16 * memory.GIB, **settings):
  """A plan of 8 chips with 64 images, of so many GiB."""
  used = memory.Usage(0, total * memory.GIB, 0, 0, 0)
  return estimate.Plan(
    settings={'mesh.data': 8, 'accumulate': 1, **settings},
    images=64,
    flops=flops,
    model_flops=40e12,
    traffic=hlo.Traffic({'all-gather': sent}, {'all-gather': 3}, 0.3e12),
    usage=used,
    limit=limit,
    seconds=2.0,
  )


def test_a_step_is_no_faster_than_each_of_three_things():
  times = estimate.roofline(made(sent=0.02e12), CHIP)
  assert times is not None
  assert times == pytest.approx((0.5, 0.3, 0.1))
  assert times.overlapped == pytest.approx(0.5)
  assert times.apart == pytest.approx(0.6)


def test_a_chip_of_unknown_bandwidth_has_no_estimate():
  assert estimate.roofline(made(), chips.CHIPS['TPU v3']) is None


@pytest.mark.parametrize(
  ('total', 'limit', 'fits'),
  [(8, 8 * memory.GIB, True), (9, 8 * memory.GIB, False), (9, None, True)],
)
def test_a_step_fits_up_to_the_limit(total, limit, fits):
  assert made(total=total, limit=limit).fits is fits


def cells(table):
  columns = [column.cells for column in table.columns]
  return [' '.join(row) for row in zip(*columns, strict=True)]


def test_the_report_has_every_number_with_its_unit():
  text = '\n'.join(cells(plan.report(made(sent=0.02e12), CHIP)))
  for found in (
    'total 8 GiB 50% of 16 GiB',
    'products 50 TFLOP 0.5 s; 1.25 times those of the model',
    'HBM traffic 300 GB 0.3 s',
    'all-gather 20 GB 3 times',
    'step, all overlaps 0.5 s 128 images/s, MFU 80%',
    'step, links wait 0.6 s 107 images/s, MFU 67%',
  ):
    assert found in text


def test_what_the_compiler_refused_is_said_in_its_words():
  refused = made()._replace(usage=None, refusal='Ran out of memory: 40G')
  assert not refused.fits
  text = '\n'.join(cells(plan.report(refused, CHIP)))
  assert 'does not fit  Ran out of memory: 40G' in text


def test_grey_images_stand_in_for_absent_data_and_only_for_these(tmp_path):
  absent = {'train': 'tfds:cifar10:train[:98%]', 'data_dir': str(tmp_path)}
  source = grey.grey_source(absent)
  assert isinstance(source, data.Source)
  assert (len(source), len(source.class_names)) == (50_000, 10)
  assert source[0]['image'].shape == (32, 32, 3)
  here = {'train': 'digits:train', 'data_dir': None}
  assert grey.grey_source(here) is None
  assert len(grey.grey_source(here, num_classes=7).class_names) == 7
  none = {'train': '', 'data_dir': None}
  assert len(grey.grey_source(none).class_names) == 1000


@pytest.mark.parametrize(
  'name', ['v9:2x2', 'v5e', '4x4', 'v2:2x2', 'h100:9', 'h300']
)
def test_an_unknown_generation_is_one_line_with_those_that_are(name):
  with pytest.raises(ValueError, match='v4, v5e, v5p, v6e') as error:
    plan.topology(name if ':' in name else f'{name}x')
  assert '\n' not in str(error.value)


def test_without_libtpu_the_remedy_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'libtpu', None)
  monkeypatch.setattr(sys, 'argv', ['plan', *SMALL, '--topology=v5e:2x2'])
  message = command(lambda: plan_main(sys.argv[1:]))
  assert message == (
    'Error: --topology needs libtpu, which compiles for TPUs without one: '
    'pip install -r requirements-plan.txt'
  )


@pytest.mark.parametrize('name', ['h100', 'h200:8'])
def test_without_the_plugin_for_cuda_the_remedy_is_named(name, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', os.getenv('XLA_FLAGS', ''))

  def absent(*_, **__):
    raise NotImplementedError('topology not implemented for cuda')

  monkeypatch.setattr(topologies, 'get_topology_desc', absent)
  message = command(lambda: plan_main([*SMALL, f'--topology={name}']))
  assert message == (
    f'Error: --topology={name} needs what jax compiles for GPUs with, which is '
    'here without one as well: pip install -r requirements-cuda.txt'
  )


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ((), 'Give --config=FILE.py:ARG'),
    (('--config=configs/scaling.py',), "'model' is missing"),
    ((*SMALL, '--config.accumulate=-1'), 'give --config.memory_gib=16'),
    ((*SMALL, '--search'), 'give --config.memory_gib=16'),
  ],
)
def test_a_mistake_is_one_message(words, message):
  assert re.search(message, command(lambda: plan_main(words)))


def test_the_command_plans_for_the_devices_that_are_here(capsys):
  words = [*SMALL, '--config.memory_gib=1', '--config.mesh.fsdp=2']
  assert plan_main(words) == 0
  text = capsys.readouterr().out
  assert 'quickstart.py on 8 x cpu, batch 16; mesh.data 4, mesh.fsdp 2' in text
  assert re.search(r'total +0\.0\d+ GiB +0% of 1 GiB', text)
  assert re.search(r'all-gather +[\d.e-]+ GB +\d+ times', text)


def test_a_step_that_does_not_fit_is_an_exit_code(monkeypatch, capsys):
  small = made(total=8)
  built = lambda config, limit: small._replace(limit=limit)
  monkeypatch.setattr(plan, 'estimate', built)
  monkeypatch.setattr(
    plan, 'build', lambda config, **_: type('Built', (), {'config': config})
  )
  assert plan_main([*SMALL, '--config.memory_gib=8']) == 0
  assert plan_main([*SMALL, '--config.memory_gib=7.9']) == 1
  text = capsys.readouterr().out
  assert re.search(r'8 GiB +101% of 7\.9 GiB: does not fit', text)


@pytest.fixture
def pretend(monkeypatch):
  """Compiles nothing: only `remat` and two micro-batches make a step fit."""
  tried = []

  def fake(config, limit):
    mesh, model = config['mesh'], config['model']
    tried.append(
      (mesh['fsdp'], mesh['tensor'], model['remat'], config['accumulate'])
    )
    gib = {'none': 30, 'dots': 20, 'nothing': 10}[model['remat']]
    return made(
      total=gib * (2 if mesh['fsdp'] == 1 else 1) // config['accumulate'],
      flops=1e12 * {'none': 50, 'dots': 51, 'nothing': 66}[model['remat']],
      sent=mesh['fsdp'] * 1e9,
      limit=limit,
      **{f'mesh.{axis}': n for axis, n in mesh.items()},
      **{'model.remat': model['remat'], 'accumulate': config['accumulate']},
    )

  monkeypatch.setattr(plan, 'build', lambda config, **_: config)
  monkeypatch.setattr(plan, 'estimate', fake)
  return tried


def test_a_search_gives_up_the_least_and_ranks_what_fits(pretend, capsys):
  config = {'model': {'name': 'vit'}}
  found = plan.search(
    config, chip=CHIP, limit=16 * memory.GIB, devices=list(range(8))
  )
  # Data alone needs micro-batches; fsdp does with `remat`.
  assert pretend[:5] == [
    *((1, 1, remat, 1) for remat in ('none', 'dots', 'nothing')),
    *((1, 1, 'dots', parts) for parts in (2, 4)),
  ]
  assert [p.settings['mesh.fsdp'] for p in found] == [1, 2, 8]
  best = plan.flags(found[0])
  assert '--config.mesh.data=8' in best and '--config.accumulate=4' in best
  text = capsys.readouterr().out
  assert len(text.splitlines()) == len(pretend)
  assert text.count('does not fit') == len(pretend) - len(found)


@pytest.mark.parametrize('count', [1, 4, 8, 64, 96, 512])
def test_every_mesh_of_a_search_uses_all_chips_once(count):
  found = plan.meshes(count)
  assert all(m['data'] * m['fsdp'] * m['tensor'] == count for m in found)
  assert len({tuple(m.items()) for m in found}) == len(found)


def test_a_limit_is_that_of_the_device_or_of_its_vendor():
  device = jax.devices()[0]
  assert estimate.memory_limit(device, None, here=True) is None
  assert estimate.memory_limit(device, CHIP, here=False) == 16 * memory.GIB


@pytest.mark.slow
@pytest.mark.parametrize(
  ('compiler', 'topology', 'device', 'gib'),
  [
    ('libtpu', 'v5e:2x2', 'TPU v5 lite', '14.9'),
    ('jax_cuda13_plugin', 'h100:4', 'NVIDIA H100', '74.5'),
  ],
)
def test_a_step_is_compiled_for_devices_that_are_not_here(
  compiler, topology, device, gib
):
  pytest.importorskip(compiler)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'vit_jax.tools.plan', f'--topology={topology}'),
      *('--config=configs/scaling.py:mu_16', '--config.batch_size=64'),
      *('--config.mesh.data=1', '--config.mesh.fsdp=4'),
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
  )
  assert done.returncode == 0, done.stderr
  assert f'on 4 x {device}, batch 64' in done.stdout
  assert re.search(rf'total +0\.0\d+ GiB +0% of {gib} GiB', done.stdout)
  assert re.search(r'all-gather +[\d.e-]+ GB +\d+ times', done.stdout)
