{# What a build has not taken in yet, as a condition on `exported_date` and `exported_number`. Both are literals, so that files and partitions
   of before are not opened. #}
{% macro landed_since(relation) %}
    {%- set until = run_query(
        "select coalesce(max(exported_number), 0), coalesce(cast(max(as_of) as date), date '1970-01-01') from " ~ relation
    ) if execute else none -%}
    {%- if until -%}
        {# a day of grace for clocks that were set back #}
        exported_number > {{ until.rows[0][0] }}
        and exported_date >= cast('{{ until.rows[0][1] - modules.datetime.timedelta(days=1) }}' as date)
    {%- else -%}
        true
    {%- endif -%}
{% endmacro %}
