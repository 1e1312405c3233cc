"""The files in launch/: they parse, and hand on what they are given."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

from vit_jax.main import TERMINATED

LAUNCH = pathlib.Path(__file__).parent.parent / 'launch'
SCRIPTS = ('tpu_pod.sh', 'slurm.sbatch')
ARGS = ('--config=configs/vit.py:b16', "--config.duration=10 'epochs'")


@pytest.fixture
def stubs(tmp_path):
  """A function that puts a command in the path; it logs what it is given."""
  log = tmp_path / 'log'
  log.touch()

  def add(name, *, code=0):
    path = tmp_path / name
    path.write_text(
      f'#!/bin/sh\nfor x in {name} "$@"; do printf "%s\\0" "$x"; done'
      f' >> {log}\nprintf "\\n" >> {log}\nexit {code}\n'
    )
    path.chmod(0o755)

  add.log = lambda: [
    line.split('\0')[:-1] for line in log.read_text().splitlines()
  ]
  add.environment = os.environ | {
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'SLURM_JOB_ID': '7',
    'SLURM_CPUS_PER_TASK': '12',
  }
  return add


def run(script, *args, stubs):
  return subprocess.run(
    ['bash', LAUNCH / script, *args],
    env=stubs.environment,
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize('script', SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
  shellcheck = pathlib.Path(sys.executable).parent / 'shellcheck'
  result = subprocess.run([shellcheck, LAUNCH / script], capture_output=True)
  assert result.returncode == 0, result.stdout.decode()


def test_a_pod_gets_the_arguments_as_they_were_given(stubs):
  stubs('gcloud')
  assert run('tpu_pod.sh', 'pod', 'zone', *ARGS, stubs=stubs).returncode == 0
  ((gcloud, *flags, command),) = stubs.log()
  assert gcloud == 'gcloud'
  assert {'pod', '--zone=zone', '--worker=all'} < set(flags)
  words = shlex.split(command.removeprefix('--command='))
  assert words[-len(ARGS) :] == list(ARGS)


def test_a_pod_without_arguments_is_told_how(stubs):
  stubs('gcloud')
  result = run('tpu_pod.sh', stubs=stubs)
  assert result.returncode == 1 and not stubs.log()
  assert 'launch/tpu_pod.sh NAME ZONE --config=' in result.stderr


@pytest.mark.parametrize('code', [0, 1, TERMINATED])
def test_a_job_queues_itself_again_if_it_was_terminated(stubs, code):
  stubs('srun', code=code)
  for name in ('scontrol', 'sleep'):
    stubs(name)
  assert run('slurm.sbatch', *ARGS, stubs=stubs).returncode == code
  srun, *others = stubs.log()
  assert srun[-len(ARGS) :] == list(ARGS)
  assert '--cpus-per-task=12' in srun
  again = [['scontrol', 'requeue', '7'], ['sleep', '600']]
  assert others == (again if code == TERMINATED else [])


def test_a_jobset_meets_at_its_first_pod_and_restarts():
  jobset = yaml.safe_load((LAUNCH / 'jobset.yaml').read_text())
  assert jobset['kind'] == 'JobSet'
  assert jobset['apiVersion'].startswith('jobset.x-k8s.io/')
  assert jobset['spec']['failurePolicy']['maxRestarts'] > 0
  (part,) = jobset['spec']['replicatedJobs']
  job = part['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  variables = {x['name']: x for x in container['env']}
  # JOBSET-PART-JOB-POD.JOBSET
  name = jobset['metadata']['name']
  host, _, port = variables['JAX_COORDINATOR_ADDRESS']['value'].partition(':')
  assert host == f'{name}-{part["name"]}-0-0.{name}'
  assert int(port) in {x['containerPort'] for x in container['ports']}
  count = int(variables['JAX_NUM_PROCESSES']['value'])
  assert count == job['parallelism'] == job['completions'] > 1
  assert 'JAX_PROCESS_ID' in variables
  codes = [
    rule['onExitCodes']['values']
    for rule in job['podFailurePolicy']['rules']
    if 'onExitCodes' in rule
  ]
  assert codes == [[TERMINATED]]
  volumes = {volume['name'] for volume in pod['volumes']}
  assert {mount['name'] for mount in container['volumeMounts']} == volumes
