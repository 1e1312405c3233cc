import time, sys
sys.path.insert(0, '/work/main/tests')
import step_test as s, jax
def test_x():
  for ch in ({}, {'accumulate':2, **s.MESH_OF_2}):
    t=time.time(); b=s.build(**ch); print('build', time.time()-t)
    t=time.time(); ts=s.first_state(b); print('init', time.time()-t)
    t=time.time(); f=jax.jit(s.make_step(b)); l=f.lower(ts, s.digits()); print('lower', time.time()-t)
    t=time.time(); c=l.compile(); print('compile', time.time()-t)
    t=time.time(); s.take(b, ts=ts); print('take', time.time()-t)
  t=time.time(); s.build(); print('build2', time.time()-t)
