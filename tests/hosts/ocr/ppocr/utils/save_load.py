import os
import pickle

import paddle


def load_model(config, model, optimizer=None):
    settings, found = config["Global"], {}
    if settings.get("checkpoints"):
        path = settings["checkpoints"]
        model.set_state_dict(paddle.load(path + ".pdparams"))
        optimizer.set_state_dict(paddle.load(path + ".pdopt"))
        with open(path + ".states", "rb") as file:
            states = pickle.load(file)
        found = states.get("best_model_dict", {})
        found["start_epoch"] = states["epoch"] + 1
    elif settings.get("pretrained_model"):
        given, own = paddle.load(settings["pretrained_model"] + ".pdparams"), model.state_dict()
        # A head for another dictionary has another shape: it is left out.
        model.set_state_dict({name: v for name, v in given.items() if name in own and own[name].shape == v.shape})
    return found


def save_model(model, optimizer, folder, prefix, **states):
    path = os.path.join(folder, prefix)
    paddle.save(optimizer.state_dict(), path + ".pdopt")
    paddle.save(model.state_dict(), path + ".pdparams")
    with open(path + ".states", "wb") as file:
        pickle.dump(states, file, protocol=2)
