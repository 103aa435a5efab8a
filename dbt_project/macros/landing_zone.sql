{# The name of the landing zone, as a SQL text: `sync_layers.bigquery.source` of the configuration. #}
{% macro landing_zone() -%}
'{{ dbt.escape_single_quotes(env_var("LZ_DBT_SOURCE", "gcp-landing-zone")) }}'
{%- endmacro %}
