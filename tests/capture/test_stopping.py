"""Work on a model ends where it is asked to, in its own thread only, and leaves nothing behind."""

import threading
import time

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from xai_utils import check, methods
from xai_utils.capture.stopping import Stopped, stoppable
from xai_utils.maths import flow


def test_set_before_the_next_layer_the_work_raises():
    flag, seen = threading.Event(), []
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model[1].register_forward_hook(lambda *_: seen.append(1) or flag.set())
    model[2].register_forward_hook(lambda *_: seen.append(2))
    with pytest.raises(Stopped, match="still valid"), stoppable(flag):
        model(torch.ones(1, 2))
    assert seen == [1]
    model(torch.ones(1, 2))
    assert seen == [1, 1, 2]


def test_a_flag_set_during_the_last_layer_counts_too():
    flag = threading.Event()
    with pytest.raises(Stopped), stoppable(flag):
        flag.set()


def test_work_of_another_thread_goes_on():
    flag, answers = threading.Event(), []
    flag.set()
    layer = nn.Linear(2, 2)
    with pytest.raises(Stopped), stoppable(flag):
        other = threading.Thread(target=lambda: answers.append(layer(torch.ones(1, 2)).shape))
        other.start()
        other.join()
    assert answers == [(1, 2)]


@pytest.mark.parametrize("name", ["integrated_gradients", "attnlrp", "rollout"])
def test_a_method_stopped_in_the_middle_leaves_the_model_as_it_was(name):
    model, sample = tiny.model("bert"), tiny.samples("bert")[0]
    before = methods.explain(name, model, sample).scores
    flag, passes = threading.Event(), []
    handle = model.module.register_forward_hook(lambda *_: passes.append(1) or flag.set())
    try:
        with pytest.raises(Stopped), stoppable(flag):
            methods.explain(name, model, sample)
            methods.explain(name, model, sample)
    finally:
        handle.remove()
    assert torch.equal(methods.explain(name, model, sample).scores, before)


def test_attention_flow_over_many_tokens_ends_within_two_seconds():
    steps = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(458, 0.01), (6, 458)))
    flag, ended = threading.Event(), []

    def work():
        with pytest.raises(Stopped), stoppable(flag):
            flow.flow(steps, queries=[0])
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(4)
    assert thread.is_alive(), "it takes far longer"
    flag.set()
    begun = time.process_time()
    thread.join(60)
    assert ended and time.process_time() - begun < 2


def test_a_loop_that_nobody_stops_goes_on():
    check.still_wanted()
    flag = threading.Event()
    with stoppable(flag):
        check.still_wanted()
    flag.set()
    check.still_wanted()
