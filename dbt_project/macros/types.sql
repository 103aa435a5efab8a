{# Types whose names differ between the warehouses. `string`, `bigint`, `date` and `numeric(38, 9)` mean the same on both. #}

{# An instant: an absolute point in time. #}
{% macro type_instant() %}{{ return(adapter.dispatch('type_instant', 'lz_sync')()) }}{% endmacro %}

{% macro default__type_instant() %}timestamptz{% endmacro %}

{% macro bigquery__type_instant() %}timestamp{% endmacro %}

{# An exact number with nine decimals, as BigQuery's NUMERIC: for money, and for what must not depend on the order of a sum. #}
{% macro type_exact() %}numeric(38, 9){% endmacro %}

{# A ratio: a double. #}
{% macro type_ratio() %}{{ return(adapter.dispatch('type_ratio', 'lz_sync')()) }}{% endmacro %}

{% macro default__type_ratio() %}double{% endmacro %}

{% macro bigquery__type_ratio() %}float64{% endmacro %}
