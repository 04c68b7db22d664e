"""ai-edge-quantizer: its static recipe as it is; and the best of what computes in 8 bits.

That is the static recipe by both calibrators, and dynamic ranges.
"""

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from quantizing import JOB, calibration, choose, finish, run_tflite

RAW = Path("model").read_bytes()
KEY, ENTRY = next(
    (key, next(iter(said["inputs"])))
    for key, said in Interpreter(model_content=RAW).get_signature_list().items()
)


def feeds():
    x = calibration()
    return {KEY: [{ENTRY: x[i : i + 1]} for i in range(len(x))]}


def static(exact):
    made = quantizer.Quantizer(bytearray(RAW), recipe.static_wi8_ai8())
    if not exact:
        return bytes(made.quantize(made.calibrate(feeds())).quantized_model)
    manager = RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    watcher = Calibrator(RAW, num_threads=1, qsv_update_func=min_max_update)
    watcher.calibrate(feeds(), manager)
    return bytes(made.quantize(watcher.get_model_qsvs()).quantized_model)


def without(made_of):
    made = quantizer.Quantizer(bytearray(RAW), made_of)
    return bytes(made.quantize().quantized_model)


def main():
    if JOB["way"] == "default":
        finish(static(exact=False), "static")
        return
    choose(
        [
            ("static", lambda: static(exact=False)),
            ("static min_max_update", lambda: static(exact=True)),
            ("dynamic", lambda: without(recipe.dynamic_wi8_afp32())),
        ],
        run_tflite,
    )


main()
