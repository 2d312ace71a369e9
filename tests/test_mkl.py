"""Matrix products on processors that are not Intel's: MKL's widest code, taken in time, told when it is too late."""

import os
import textwrap

import processes
import pytest

from paddle_ftstrat._paddle import threads

AVX2 = "fpu sse4_2 avx avx2 fma bmi1 bmi2"
AVX512 = AVX2 + " avx512f avx512cd avx512bw avx512dq avx512vl"


def cpuinfo(path, vendor, flags):
    """A file as Linux writes it, with a second processor that must not matter."""
    path.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\nvendor_id\t: Nobody\nflags\t\t: \n")
    return path


@pytest.mark.parametrize(
    ("vendor", "flags", "number"),
    [
        ("AuthenticAMD", AVX2, 5),
        ("AuthenticAMD", AVX512, 7),
        ("HygonGenuine", AVX2, 5),
        ("AuthenticAMD", AVX512.replace("avx512dq ", ""), 5),
        ("AuthenticAMD", AVX2.replace("fma ", ""), None),
        ("AuthenticAMD", "fpu sse4_2", None),
        ("GenuineIntel", AVX512, None),
    ],
)
def test_what_a_processor_can_run(tmp_path, vendor, flags, number):
    assert threads.widest(cpuinfo(tmp_path / "cpuinfo", vendor, flags))[0] == number


def test_an_unknown_processor_is_left_alone(tmp_path):
    assert threads.widest(tmp_path / "missing") == (None, "")
    other = tmp_path / "arm"
    other.write_text("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\n")
    assert threads.widest(other) == (None, "")


HERE = threads.widest(threads.CPUINFO)[0] if threads._detection() else None
ON_INTEL = "MKL takes wide code on Intel's processors by itself, or Paddle has another MKL"
switchable = pytest.mark.skipif(HERE is None, reason=ON_INTEL)


def in_a_process(tmp_path, code, flags=AVX2, **environment):
    """Run code on what calls itself an AMD processor, with nothing of MKL's in the environment but what is given."""
    path = cpuinfo(tmp_path / "cpuinfo", "AuthenticAMD", flags)
    start = f"""
        import os, warnings, zlib
        warnings.simplefilter("ignore")
        import numpy as np, pathlib, paddle, paddle_ftstrat as hub
        from paddle_ftstrat._paddle import threads
        threads.CPUINFO = pathlib.Path({str(path)!r})
    """
    inherited = {key: None for key in os.environ if key.startswith("MKL_")}
    return processes.run_code(
        tmp_path, textwrap.dedent(start) + textwrap.dedent(code), **{**inherited, **environment}
    ).split()


FIRST = {
    "cpu_threads": "with hub.cpu_threads(2): pass",
    "bind": "hub.DefaultFinetuneStrategy(learning_rate=0.1).bind(model, sample_input=paddle.ones([2, 4]))",
    "Learner": "hub.Learner(model, [(paddle.ones([2, 4]), paddle.ones([2, 4]))], lr=0.1)",
}


@switchable
@pytest.mark.parametrize("first", FIRST)
def test_what_trains_takes_it_before_the_first_forward(tmp_path, first):
    code = f"""
        model = paddle.nn.Linear(4, 4)
        {FIRST[first]}
        model(paddle.ones([2, 4]))
        print(threads.code_in_force(), threads.take_widest_code().late, threads.MKL_VARIABLE in os.environ)
    """
    assert in_a_process(tmp_path, code) == ["5", "False", "False"]


def test_too_late_is_told_once(tmp_path):
    code = """
        threads._detection = lambda: lambda: 0
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(2):
                with hub.cpu_threads(1):
                    pass
        said = [str(warning.message) for warning in seen]
        print(len(said), "AVX2" in said[0], "MKL_DEBUG_CPU_TYPE=5" in said[0], threads.take_widest_code().late)
    """
    assert in_a_process(tmp_path, code) == ["1", "True", "True", "True"]


@switchable
def test_the_first_product_settles_it(tmp_path):
    code = """
        paddle.matmul(paddle.ones([4, 4]), paddle.ones([4, 4]))
        threads.take_widest_code()
        print(threads.take_widest_code().late)
    """
    assert in_a_process(tmp_path, code) == ["True"]


@switchable
@pytest.mark.parametrize("variable", ["MKL_DEBUG_CPU_TYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"])
def test_the_users_choice_stays(tmp_path, variable):
    value = {"MKL_DEBUG_CPU_TYPE": "4", "MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}[variable]
    code = f"""
        threads.take_widest_code()
        print(threads.code_in_force(), os.environ[{variable!r}], threads._detection()())
    """
    in_force, kept, number = in_a_process(tmp_path, code, **{variable: value})
    assert (in_force, kept) == ("None", value)
    assert variable != "MKL_DEBUG_CPU_TYPE" or number == "4"


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(AVX2, marks=switchable),
        pytest.param(AVX512, marks=pytest.mark.skipif(HERE != 7, reason=f"{ON_INTEL}; or there is no AVX-512")),
    ],
)
def test_products_and_gradients_are_right(tmp_path, flags):
    """Sizes around the kernels' tiles, both dtypes, transposes, batches, a convolution: against float64 of numpy."""
    code = """
        import itertools
        threads.take_widest_code()
        draw = np.random.default_rng(0)
        worst = 0.0
        sizes = [1, 3, 8, 16, 17, 48, 130]
        for m, n, k in itertools.product(sizes, sizes, sizes):
            for dtype, (ta, tb) in itertools.product(["float32", "float64"], itertools.product([0, 1], [0, 1])):
                a, b = draw.standard_normal([2, m, k]), draw.standard_normal([2, k, n])
                left, right = (paddle.to_tensor(v.swapaxes(1, 2) if t else v, dtype) for v, t in ((a, ta), (b, tb)))
                got = paddle.matmul(left, right, bool(ta), bool(tb)).numpy()
                scale = (abs(a) @ abs(b)).max() * (1 if dtype == "float64" else 2**29)
                worst = max(worst, abs(got - a @ b).max() / scale)
        images, filters = draw.standard_normal([2, 3, 9, 9]), draw.standard_normal([5, 3, 3, 3])
        images32 = paddle.to_tensor(images, "float32", stop_gradient=False)
        out = paddle.nn.functional.conv2d(images32, paddle.to_tensor(filters, "float32"))
        windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (2, 3))
        close = np.allclose(out.numpy(), np.einsum("bchwij,ocij->bohw", windows, filters), atol=1e-4)
        out.sum().backward()
        inside = np.allclose(images32.grad.numpy()[:, :, 4, 4], filters.sum((0, 2, 3)), atol=1e-4)
        grid = paddle.linspace(-6, 6, 1001)
        gelu = paddle.nn.functional.gelu(grid).numpy()
        right = [x * (1 + __import__("math").erf(x / 2**0.5)) / 2 for x in grid.numpy().tolist()]
        print(threads.code_in_force(), worst < 1e-15, close, inside, np.allclose(gelu, right, atol=1e-5))
    """
    number = "7" if "avx512f" in flags else "5"
    assert in_a_process(tmp_path, code, flags) == [number, "True", "True", "True", "True"]
