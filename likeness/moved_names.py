"""Class paths that configurations and checkpoints of earlier versions name, and those that stand for them now.

A class that moves or gets another name has a line here, and every run made before goes on being read: configurations,
the comparison of a run's configuration with a new one, and the hyper-parameters of checkpoints all ask this table.
"""

# By the package that exports the classes now: the modules that held them, and what they are called.
_EXPORTED = {
    "callbacks": {
        "checkpoints": "AtomicCheckpointIO LastCheckpoint",
        "csv_logger": "RunCSVLogger",
        "depth_curve": "DepthCurve",
        "elbo_diagnostics": "ElboDiagnostics",
        "encoder_diagnostics": "EncoderDiagnostics",
        "exact_resume": "ExactResume",
        "gradient_norms": "GradientNorms",
        "hubness": "Hubness",
        "label_geometry": "LabelGeometry",
        "loggers": "RunCSVLogger RunWandbLogger",
        "loss_by_gamma": "LossByGamma",
        "preemption": "Preemption",
        "progress": "RunProgressBar",
        "representation_similarity": "RepresentationSimilarity",
        "run_segments": "RunSegments",
        "samples": "SampleFigures",
        "schedule_diagnostics": "ScheduleDiagnostics",
        "stop_on_nonfinite": "StopOnNonFinite",
        "wandb_logger": "RunWandbLogger",
        "weights_export": "ExportWeights",
    },
    "datamodules": {
        "cifar": "CIFAR10 CIFAR100",
        "digits": "Digits",
        "docstring_pairs": "DocstringPairs",
        "docstrings": "Docstrings",
        "imagenet32": "ImageNet32",
        "mnist": "MNIST",
        "newsgroups": "NewsGroups20",
        "photo_patches": "PhotoPatches",
        "radial": "Radial",
        "sentence_pairs": "SentencePairs",
        "sentences": "Sentences",
        "swirl": "Swirl",
    },
    "lightning_modules": {
        "diffenc": "DiffEnc",
        "sentence_encoder": "SentenceEncoder",
        "sharded_strategy": "ShardedDataParallel",
        "sibling_classifiers": "SiblingClassifiers",
        "softmax_classifier": "SoftmaxClassifier",
        "variational_diffusion": "VariationalDiffusion",
    },
    "likeness.diffusion": {
        "encoders": "IdentityEncoder ParameterFreeEncoder TrainableEncoder",
        "schedules": "AffineSchedule LinearSchedule MonotoneSchedule PolynomialSchedule",
        "variance_ratio": "ConstantRatio FittedRatio LearnedRatio",
    },
    "likeness.networks": {
        "convolutional": "CNN ResNet18",
        "encoder_output": "EncoderOutput",
        "encoder_unet": "EncoderUNet",
        "heads": "LabelTable LinearHead",
        "mlp": "LabelNetwork MLP",
        "point_networks": "EncoderMLP ScoreMLP",
        "score_unet": "PyramidScoreUNet ScoreUNet",
        "text_transformer": "PretrainedTransformer SmallTransformer",
    },
}
MOVED = {
    f"{package}.{module}.{name}": f"{package}.{name}"
    for package, modules in _EXPORTED.items()
    for module, names in modules.items()
    for name in names.split()
}


def moved(path: str) -> str:
    """The path of a class now, for its path in any version; other texts are answered as they are.

    >>> moved("callbacks.elbo_diagnostics.ElboDiagnostics")
    'callbacks.ElboDiagnostics'
    """
    return MOVED.get(path, path)
