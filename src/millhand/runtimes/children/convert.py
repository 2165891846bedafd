"""Arguments from JSON to what a function's annotations ask for, and any result to JSON."""

import json
import json.encoder

_open = {}  # the containers that the encoder is in: it finds circles by it
# What json.dumps(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain) makes anew at each call.
_pieces = json.encoder.c_make_encoder(
    _open, lambda value: _plain(value), json.encoder.encode_basestring, None, ":", ",", False, False, False
)
_VAR_POSITIONAL, _VAR_KEYWORD = 4, 8  # flags of code objects


_scan = json.JSONDecoder().scan_once  # the C scanner itself: half the work of json.loads


def from_json(data):
    """Return the value of JSON that starts at the first byte."""
    return _scan(data.decode(), 0)[0]


def arguments(function, given):
    """Return the positional and keyword arguments to call a function with.

    Arguments go by name; those it doesn't know are left out, missing ones without a default are None.
    """
    target = function
    while hasattr(target, "__wrapped__"):
        target = target.__wrapped__
    code = getattr(target, "__code__", None)
    if code is None:
        return _arguments_by_signature(function, given)
    n_positional, n_bound = code.co_argcount, getattr(target, "__self__", None) is not None
    names = code.co_varnames[n_bound : n_positional + code.co_kwonlyargcount]
    n_positional -= n_bound
    hints = getattr(target, "__annotations__", None) or {}
    scope = getattr(target, "__globals__", {})
    first_default = n_positional - len(target.__defaults__ or ())
    defaulted = (*names[first_default:n_positional], *(target.__kwdefaults__ or ()))
    values = {}
    for name in names:
        if name in given or name not in defaulted:
            values[name] = _typed(given.get(name), hints.get(name), scope)
    if code.co_flags & _VAR_KEYWORD:
        values.update((name, value) for name, value in given.items() if name not in names)
    positional = [values.pop(name) for name in names[: max(code.co_posonlyargcount - n_bound, 0)] if name in values]
    return positional, values


def _arguments_by_signature(function, given):
    import inspect

    values, positional = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            values.update((key, value) for key, value in given.items() if key not in values)
        elif parameter.kind is not parameter.VAR_POSITIONAL and (name in given or parameter.default is parameter.empty):
            value = _typed(given.get(name), parameter.annotation, {})
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                values[name] = value
    return positional, values


def _typed(value, hint, scope):
    """Return the value as the annotation wants it: bytes from base64, dates and times from their text."""
    if not isinstance(value, str) or hint is None:
        return value
    wanted = _wanted(hint, scope)
    if "str" in wanted:
        return value
    if "bytes" in wanted:
        return __import__("base64").b64decode(value)
    if "datetime" in wanted:
        return _datetime(value)
    if "date" in wanted:
        return _date(value)
    return value


def _wanted(hint, scope):
    """Return the names of the plain types in an annotation; those of unions one by one."""
    if isinstance(hint, str):
        if not any(word in hint for word in ("bytes", "date")):
            return ()
        try:
            return _wanted(eval(hint, scope), scope)
        except Exception:
            return (hint,)
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return (hint.__name__,) if hint.__module__ in ("builtins", "datetime") else ()
    if getattr(hint, "__origin__", None) in (list, dict, tuple, set):
        return ()
    return tuple(name for part in getattr(hint, "__args__", ()) for name in _wanted(part, scope))


def _datetime(text):
    from datetime import datetime

    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)


def _date(text):
    from datetime import datetime

    for form in ("%Y-%m-%d", "%d-%m-%Y", "%d/%m/%Y", "%Y/%m/%d", "%d.%m.%Y"):
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    return _datetime(text).date()


def to_json(value):
    """Return a value as JSON in UTF-8. What JSON lacks becomes what is nearest: NaN null, bytes base64, tables records."""
    try:
        text = "".join(_pieces(value, 0))
        data = text.encode()
    except (ValueError, TypeError):  # not finite, odd keys, half a surrogate pair: go through it piece by piece
        data = _encode_cleaned(value)
    else:
        if "\\u0000" in text:  # PostgreSQL can't keep it
            data = _encode_cleaned(value)
    return data


def _encode_cleaned(value):
    _open.clear()
    return "".join(_pieces(_cleaned(value, ()), 0)).encode()


def _cleaned(value, around):
    """Return a copy of plain lists, dicts, strings and numbers."""
    if isinstance(value, str):
        return without_nul(value).encode("utf-8", "replace").decode()
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if id(value) in around:
        raise ValueError("the result contains itself, so it can't be written as JSON")
    around = (*around, id(value))
    if isinstance(value, dict):
        return {_key(key): _cleaned(each, around) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(each, around) for each in value]
    return _cleaned(_plain(value), around)


def _key(key):
    if isinstance(key, bool) or key is None:
        return json.dumps(key)
    if isinstance(key, bytes):
        return _plain(key)
    return _cleaned(str(key), ())


def without_nul(text):
    return text.replace("\0", "") if "\0" in text else text


def _plain(value):
    """Return something nearer to JSON for a value that it doesn't know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return __import__("base64").b64encode(value).decode()
    if isinstance(value, (set, frozenset)) or type(value).__name__ in (
        "deque",
        "dict_keys",
        "dict_values",
        "map",
        "filter",
        "range",
    ):
        return list(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    for name, arguments in _WAYS:
        way = getattr(value, name, None)
        if callable(way) and not isinstance(value, type):
            return _converted(way, arguments, value)
    if type(type(value)).__name__ in ("EnumMeta", "EnumType"):
        return value.value
    return str(value)


# Methods of tables, arrays, models, dates: the first that a value has.
_WAYS = (
    ("to_dicts", ()),  # polars
    ("model_dump", ()),  # pydantic
    ("tolist", ()),  # numpy arrays and scalars, pandas series
    ("isoformat", ()),
    ("_asdict", ()),
    ("to_dict", ("records",)),  # pandas
)


def _converted(way, arguments, value):
    try:
        result = way(*arguments)
    except Exception:
        return str(value)
    return str(value) if result is value else result
