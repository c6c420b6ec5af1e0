"Take a recording of several instruments apart: one audio file for each instrument."
__version__ = "0.1.0"

from . import _moved  # noqa: F401  (old imports go on working)

# names at hand, imported when asked for
_HOMES = dict(InstsepError="core", Separator="separator", list_models="inference.registry")
NETWORK_MODULES = dict(RepairedUNet="separator", OpenUnmixBLSTM="harmonic", BandSplitRNN="harmonic",
                       HarmonicRNN="harmonic",
                       NoteInformedRNN="together")  # networks that a configuration may name, imported when asked for
TRANSCRIBERS = dict(posteriors=("files.posteriors", "PosteriorTranscriber"))  # the same, of what an MT3 reads


def separate(path, model=None, device=None, *, instruments=None, refine=None, notes=None, align=False,
             unscored="residual", mono=False, downmix=False, overlap=0.2, a4=None, progress=False):
    """Take a recording apart: `{stem: float32 tensor (channels, samples)}`, which has `sample_rate`, the recording's
    own.

    `path` is an audio file; `model` a name (see `list_models`), a folder, a Hugging Face id, or a `Separator` already
    loaded; `device` "cpu", "cuda", "mps" or None for the best there is; `instruments` names all that play, where
    that is known: who of them has no stem is in `residual`. More than two channels are refused unless `downmix` (to
    stereo) or `mono` is set. The stems and `residual` add up to the recording.
    `refine` learns the instruments at hand from the recording itself, None: if the model can; `notes`, a MIDI file in
    the recording's own time, helps it, and gives instruments that have no stem one of their own. With `align` it is a
    score in a time of its own. Notes that it lacks are in `residual`, or with `unscored="stems"` with who seems to play
    them. A recording whose A is not at 440 Hz is retuned for the model on the way: by what it sounds like, up to half a
    semitone, or by `a4`, in Hz.
    """
    from .inference.registry import DEFAULT_MODEL
    from .inference.windows import separate_recording
    from .separator import Separator
    separator = model if isinstance(model, Separator) else Separator.from_pretrained(model or DEFAULT_MODEL, device)
    return separate_recording(separator.given_instruments(instruments).refining(refine, notes, align, unscored),
                              path, mono=mono, downmix=downmix, overlap=overlap, a4=a4, progress=progress)


def transcribe(path, model=None, device=None, *, instruments=None, pitch_bend=False, progress=False):
    """Write down what is played in a recording: a list of `instsep.music.notes.Note`, by onset, with `confidence`
    and `by_instrument()`.

    `path` is an audio file; `model` None (what comes with the package), a folder, a Hugging Face id, or a transcriber
    already loaded; `device` "cpu", "cuda", "mps" or None for the best there is; `instruments` names those that play.
    With `pitch_bend` the list has `cents`: how far above its key each note sounds.
    """
    from .files.transcription import load_transcriber
    transcriber = model if callable(model) else load_transcriber(model, device=device)
    notes = transcriber(path, instruments=instruments, progress=progress)
    if not pitch_bend: return notes
    from .tunings import measure_cents, with_cents
    return with_cents(notes, *measure_cents(path, notes))


def __getattr__(name):
    if name not in _HOMES: raise AttributeError(f"module 'instsep' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__(): return sorted([*globals(), *_HOMES])
