with raw_lines as (

    select * from {{ source('inventory_history', 'resource_versions') }}

),

renamed as (

    select
        cast(exported_date as date) as exported_date,
        cast(exported_number as bigint) as exported_number,
        cast(exported_at as {{ type_instant() }}) as exported_at,
        cast(name as string) as resource_name,
        cast(content_type as string) as content_type,
        cast(version as bigint) as version,
        cast(asset_type as string) as asset_type,
        cast(scope as string) as scope,
        cast(project as string) as project_id,
        cast(location as string) as location,
        cast(display_name as string) as display_name,
        cast(resource_id as string) as resource_id,
        cast(is_deleted as boolean) as is_deleted,
        cast(digest as string) as digest,
        cast(source as string) as observed_by,
        cast(updated_at as {{ type_instant() }}) as updated_at,
        cast(valid_from as {{ type_instant() }}) as valid_from,
        cast(valid_to as {{ type_instant() }}) as valid_to,
        cast(first_seen_at as {{ type_instant() }}) as first_seen_at,
        cast(last_seen_at as {{ type_instant() }}) as last_seen_at
    from raw_lines

)

select * from renamed
