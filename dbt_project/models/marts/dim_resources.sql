{{
    config(
        materialized='incremental',
        unique_key=['resource_name', 'content_type', 'version'],
        on_schema_change='fail'
    )
}}

with landings as (

    select * from {{ ref('stg_inventory__resource_versions') }}
    {% if is_incremental() %}
        where {{ landed_since(this) }}
    {% endif %}

),

numbered as (

    select
        *,
        row_number() over (
            partition by resource_name, content_type, version
            order by exported_number desc
        ) as landing_number
    from landings

)

select
    cast({{ landing_zone() }} as string) as source,
    resource_name,
    content_type,
    version,
    valid_from,
    valid_to,
    valid_to is null as is_current,
    is_deleted,
    asset_type,
    scope,
    project_id,
    location,
    display_name,
    resource_id,
    digest,
    observed_by,
    updated_at,
    first_seen_at,
    last_seen_at,
    exported_number,
    exported_at as as_of
from numbered
where landing_number = 1
