"""What other libraries call the kinds and the fields of a spec, to propose the right name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from mip.spec.versions import FIELDS as OLD_FIELDS
from mip.spec.versions import KIND_NAMES as OLD_KINDS
from mip.spec.versions import SECTIONS as OLD_SECTIONS

Words = Mapping[str, str]
"""Names of ours, or paths from the root of a spec, and the words that others use for them."""

KINDS: Mapping[str, Words] = {
    "Branch": {
        "boolean": "bool binary flag yes_no indicator",
        "categorical": "category cat categories nominal factor enum string str object label",
        "continuous": "numeric numerical number numbers float int integer real scalar quantity",
        "datetime": "date time timestamp datetime64 calendar",
        "fuse": "fusion concat concatenate merge join combine nested",
        "image": "img images photo photos picture pictures pixels vision cnn conv resnet",
        "stub": "dummy random noise constant",
        "tabular": "table mlp dense tabm resnet_mlp ft_transformer tab_transformer numbers",
        "text": "texts nlp sentence document free_text string words ngrams tfidf bag_of_words",
        "vector": "embedding array list tensor features",
    },
    "Head": {
        "multiclass": "classification classifier multi_class categorical softmax cross_entropy",
        "binary": "classification classifier binary_classification boolean bool logistic sigmoid",
        "count": "counts poisson count_regression",
        "joint": "multi multitask multi_task multi_head multi_output multi_target heads",
        "multilabel": "multi_label labels tags multi_hot",
        "ordinal": "ordinal_regression ordered rank ranking rating coral corn",
        "quantile": "quantiles quantile_regression pinball interval",
        "regression": "regressor numeric numerical continuous number float scalar linear mse",
    },
    "TabularNetwork": {
        "ft_transformer": "transformer ftt tab_transformer attention",
        "mlp": "dense linear fully_connected feed_forward nn",
        "resnet_mlp": "resnet tab_resnet residual",
        "tabm": "tab_m ensemble batch_ensemble",
    },
    "OptimizerSpec": {
        "adamw": "adam_w decoupled_adam",
        "muon": "newton_schulz",
        "schedule_free": "schedulefree adamw_schedule_free",
        "sgd": "momentum nesterov gd gradient_descent",
    },
    "ScheduleSpec": {
        "constant": "none fixed flat constant_lr constant_with_warmup",
        "cosine": "cosine_annealing cosine_annealing_lr cosine_decay cosine_with_warmup",
        "exponential": "exponential_lr exponential_decay exp",
        "inverse_sqrt": "noam rsqrt inverse_square_root",
        "linear": "linear_lr linear_decay linear_with_warmup",
        "multi_step": "step step_lr multi_step_lr steps piecewise_constant",
        "one_cycle": "one_cycle_lr super_convergence 1cycle",
        "polynomial": "poly polynomial_lr polynomial_decay",
        "sequential": "sequential_lr chained join_schedules",
        "warm_restarts": "cosine_warm_restarts cosine_annealing_warm_restarts sgdr cyclic",
        "train.plateau": "plateau reduce_lr_on_plateau",
    },
}
"""Words for kinds, by the role that the kind has."""

FIELDS: Mapping[str, Words] = {
    "Augment": {
        "auto": "policy rand_augment trivial_augment auto_augment",
        "crop": "random_crop random_resized_crop zoom",
        "erase": "random_erasing cutout erasing",
        "flip": "hflip horizontal_flip random_flip mirror",
        "rotate": "rotation degrees random_rotation",
        "shift": "translate translation",
    },
    "Branch": {
        "activation": "act nonlinearity activation_fn act_layer activations",
        "augmentation": "augment augmentations aug transform transforms",
        "backbone": "model encoder arch architecture net base_model",
        "batch_norm": "bn norm normalization norm_layer batchnorm batch_normalization",
        "bins": "n_bins num_bins",
        "buckets": "n_buckets num_buckets hash_size hash_buckets n_features",
        "categorical": "category cat cat_cols cat_columns",
        "channels": "filters n_filters num_channels widths dims",
        "columns": "column features cols inputs names",
        "continuous": "numeric numerical num_cols num_columns",
        "depth": "depths convs_per_stage n_convs num_convs blocks",
        "dropout": "drop_rate dropout_rate drop p",
        "embedding_dim": "dim embed_dim embedding_size emb_dim d_model",
        "feature_layer": "layer output_layer hook",
        "finetune": "fine_tune fine_tuning finetuning unfreeze discriminative_lr",
        "freeze": "frozen trainable freeze_backbone",
        "gradient_checkpointing": "grad_checkpointing activation_checkpointing recompute",
        "global_pool": "global_pooling global_pool_type include_top",
        "layers": "hidden hidden_layers hidden_dims hidden_sizes hidden_units n_layers units",
        "max_length": "max_len max_tokens sequence_length seq_len truncate",
        "max_pool": "maxpool max_pooling max_pooling2d pool_size",
        "method": "mode fusion how operation",
        "min_count": "min_freq min_frequency minimum_count",
        "missing": "on_missing nan_policy na impute",
        "modality_dropout": "drop branch_dropout",
        "residual": "residuals additive stagewise boosting",
        "residual_folds": "folds n_folds inner_folds",
        "network": "model encoder net architecture",
        "out_features": "dim size out_dim",
        "pool": "pooling aggregate aggregation",
        "pretrained": "weights checkpoint pretrained_weights",
        "scale": "scaler scaling normalize normalization standardize transform",
        "separable": "depthwise depthwise_separable separable_conv groups",
        "size": "image_size img_size resolution input_size",
        "stride": "strides output_stride downsample",
        "unseen_rate": "unknown_rate oov_rate",
        "value_range": "range window in_range data_range intensity_range max_value",
    },
    "ColumnFormat": {
        "date_format": "format datetime_format strptime",
        "decimal": "decimal_point decimal_separator",
        "merge": "replace map mapping rename",
        "multipliers": "suffixes factors magnitudes",
        "na_values": "na null nulls null_values missing missing_values",
        "sep": "separator delimiter",
        "thousands": "thousands_separator",
        "unit": "units currency suffix",
    },
    "Finetune": {
        "after": "start freeze_epochs freeze_share frozen_steps unfreeze_at unfreeze_after",
        "layer_decay": "decay lr_decay layerwise_decay layer_wise_decay llrd gamma",
        "lr_scale": "lr learning_rate lr_mult lr_multiplier lr_factor backbone_lr",
    },
    "Fusion": {
        "activation": "act nonlinearity activation_fn act_layer activations",
        "batch_norm": "bn norm normalization norm_layer batchnorm batch_normalization",
        "dropout": "drop_rate dropout_rate drop p",
        "embedding_dim": "dim embed_dim d_model",
        "layers": "hidden hidden_layers hidden_dims hidden_sizes hidden_units n_layers units",
        "method": "kind type mode how",
        "modality_dropout": "branch_dropout",
        "residual": "residuals additive stagewise boosting",
        "residual_folds": "folds n_folds inner_folds",
        "num_heads": "n_heads nhead attention_heads",
        "depth": "n_layers num_layers n_blocks",
    },
    "ParamGroup": {
        "lr_scale": "lr learning_rate lr_mult lr_multiplier lr_factor",
        "match": "params parameters pattern name names path regex module",
        "start_epoch": "unfreeze_epoch unfreeze_at freeze_until",
    },
    "Head": {
        "activation": "act nonlinearity activation_fn act_layer activations",
        "batch_norm": "bn norm normalization norm_layer batchnorm batch_normalization",
        "class_weight": "class_weights weight weights balance balanced",
        "column": "target label y target_column label_column target_name response outcome columns",
        "dropout": "drop_rate dropout_rate drop p",
        "focal_gamma": "gamma",
        "layers": "hidden hidden_layers hidden_dims hidden_sizes hidden_units n_layers units",
        "loss": "criterion loss_fn loss_function objective",
        "loss_weights": "weights task_weights",
        "members": "n_members ensemble ensemble_size n_models k",
        "missing": "on_missing nan_policy",
        "order": "classes categories levels",
        "pos_label": "positive_class pos_class true_label",
        "quantiles": "taus alphas alpha q quantile",
        "scale": "scaler transform target_transform normalize log_target",
    },
    "Init": {
        "initializer": "init method name fn function kind",
        "match": "params parameters pattern name names path regex module",
        "options": "args kwargs arguments parameters",
    },
    "TabularNetwork": {
        "activation": "act nonlinearity activation_fn act_layer activations",
        "batch_norm": "bn norm normalization norm_layer batchnorm batch_normalization",
        "depth": "n_layers num_layers n_blocks num_blocks blocks",
        "dropout": "drop_rate dropout_rate drop p",
        "embedding_dim": "dim d_token d_model width token_dim",
        "hidden": "d_hidden hidden_dim hidden_size units width",
        "layers": "hidden_layers hidden_dims hidden_sizes hidden_units n_layers units",
        "members": "n_members ensemble_size n_models k",
        "num_heads": "n_heads nhead attention_heads",
    },
    "OptimizerSpec": {
        "betas": "beta beta1 beta2",
        "eps": "epsilon",
        "lr": "learning_rate eta step_size base_lr max_lr rate",
        "weight_decay": "wd l2 l2_regularization reg_lambda",
        "train.schedule": "scheduler schedule lr_scheduler",
    },
    "Plateau": {"factor": "gamma", "metric": "monitor", "threshold": "min_delta tol"},
    "ScheduleSpec": {
        "cycle_mul": "t_mult",
        "cycles": "n_cycles num_cycles restarts",
        "end_factor": "min_lr eta_min end_lr final_lr final_div_factor",
        "gamma": "decay_rate drop",
        "milestones": "steps epochs boundaries",
        "power": "exponent",
        "warmup": "warmup_steps warmup_epochs warmup_ratio warmup_fraction pct_start",
        "train.optimizer.lr": "lr max_lr base_lr learning_rate peak",
    },
    "Split": {
        "fractions": "ratios shares sizes test_size val_size train_size validation_split",
        "folds": "cv k_fold n_splits",
        "key": "id hash",
        "seed": "random_state random_seed",
        "stratify": "stratified stratify_by",
        "time": "date order_by time_column",
        "valid": "val validation",
        "group": "groups group_by group_column",
    },
    "": {
        "branch": "branches features inputs modalities columns x",
        "branch.NAME.augmentation": "augment augmentations transforms",
        "branch.NAME.backbone": "model encoder arch architecture",
        "branch.NAME.size": "image_size img_size resolution",
        "data.split": "splits train_test_split cv",
        "data.split.column": "split_column",
        "data.split.folds": "k_fold n_splits",
        "data.split.fractions": "test_size val_size validation_split validation_fraction",
        "data.split.group": "groups",
        "data.split.seed": "",
        "data.split.stratify": "stratified",
        "data.stream": "streaming lazy",
        "data.table": "dataset path file csv filename data_path dataframe train_data source",
        "fusion": "fuse merge combine fusion_method",
        "head": "heads output outputs task objective",
        "head.class_weight": "class_weights",
        "head.column": "target label y target_column label_column response outcome",
        "head.dropout": "dropout_rate drop_rate",
        "head.label_smoothing": "",
        "head.layers": "hidden hidden_layers hidden_dims hidden_sizes hidden_units n_layers",
        "head.loss": "loss_fn loss_function criterion",
        "init": "initializers initialization",
        "train": "training trainer fit",
        "train.accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accum",
        "train.batch_size": "batch bs minibatch mini_batch mini_batch_size train_batch_size",
        "train.checkpoint_every": "save_every save_steps checkpoint_interval",
        "train.clip_norm": "grad_clip gradient_clip_val max_grad_norm clip_grad_norm clipnorm",
        "train.compile": "torch_compile jit",
        "train.cutmix": "cutmix_alpha",
        "train.ema": "ema_decay model_ema weight_ema",
        "train.epochs": "epoch n_epochs num_epochs max_epochs epochs_max nb_epochs n_iter",
        "train.group": "groups param_groups parameter_groups",
        "train.keep_last": "save_total_limit save_top_k max_to_keep",
        "train.mixup": "mixup_alpha",
        "train.on_nan": "nan_policy terminate_on_nan detect_anomaly",
        "train.optimizer": "optim optimiser solver",
        "train.optimizer.lr": "learning_rate eta step_size base_lr initial_lr",
        "train.optimizer.momentum": "",
        "train.optimizer.weight_decay": "wd l2",
        "train.patience": "early_stopping early_stop early_stopping_rounds early_stopping_patience",
        "train.plateau": "reduce_lr_on_plateau",
        "train.precision": "amp mixed_precision fp16 bf16 half dtype",
        "train.restore_best": "restore_best_weights save_best load_best_model_at_end best",
        "train.schedule": "scheduler lr_scheduler lr_schedule",
        "train.schedule.warmup": "warmup_steps warmup_epochs warmup_ratio",
        "train.seed": "random_state random_seed",
        "train.swa": "swa_start stochastic_weight_averaging",
        "train.workers": "num_workers n_workers n_jobs",
        "warm_start": "finetune init_from pretrained_model load_from",
    },
}
"""Words for fields, by the role of the kind or the name of the section that is read; under "" those
that belong elsewhere.
"""


VALUES: Words = {
    "after": "post last",
    "avg": "average mean gap global_average_pooling",
    "before": "pre first true",
    "leaky_relu": "lrelu",
    "max": "maximum gmp global_max_pooling",
    "mean": "avg average",
    "none": "linear identity off false null",
    "silu": "swish",
}
"""Words for values of fields that take one of several."""


def values_meant(word: str, known: Collection[str]) -> list[str]:
    """Return the values of a field that a word stands for.

    >>> values_meant("swish", ["relu", "silu"]), values_meant("LeakyReLU", ["leaky_relu"])
    (['silu'], ['leaky_relu'])
    """
    return _matches({name: VALUES.get(name, "") for name in known}, word, known)


def kinds_meant(word: str, role: str, known: Collection[str]) -> list[str]:
    """Return the kinds of a role that a word stands for, those of version 1 first.

    >>> kinds_meant("numerical", "Branch", ["continuous"])
    ['continuous']
    """
    old = [OLD_KINDS[word]] if OLD_KINDS.get(word) in known else []
    return [*old, *_matches(KINDS.get(role, {}), word, known)]


def fields_meant(word: str, role: str, known: Collection[str]) -> list[str]:
    """Return the fields that a word stands for: those of version 1, of the role or the section that
    is read (of these only what is `known` there), and else the paths of those elsewhere.

    >>> fields_meant("learning_rate", "OptimizerSpec", ["lr"]), fields_meant("lr", "Train", [])
    (['lr'], ['train.optimizer.lr'])
    """
    old = [name for name in _old_fields(word) if name in known]
    here = [*old, *_matches(FIELDS.get(role, {}), word, known)]
    return list(dict.fromkeys(here or _matches(FIELDS[""], word, known)))


def _old_fields(word: str) -> Iterator[str]:
    for changes in (*OLD_SECTIONS.values(), *OLD_FIELDS.values()):
        if change := changes.get(word):
            yield change if isinstance(change, str) else change[0]


def _matches(words: Words, word: str, known: Collection[str]) -> list[str]:
    plain = _plain(word)
    paths = (name for name in words if "." in name or name in known or words is FIELDS[""])
    return [
        path
        for path in paths
        if plain in map(_plain, [path.rpartition(".")[2], *words[path].split()])
    ]


def _plain(word: str) -> str:
    # batchSize, batch-size and batch_size are one word.
    return re.sub(r"[\W_]", "", word).lower()
