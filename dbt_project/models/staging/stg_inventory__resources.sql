with raw_lines as (

    select * from {{ source('inventory', 'resources') }}

),

renamed as (

    select
        cast(snapshot_date as date) as snapshot_date,
        cast(as_of as {{ type_instant() }}) as as_of,
        cast(name as string) as resource_name,
        cast(asset_type as string) as asset_type,
        cast(project as string) as project_id,
        cast(location as string) as location,
        cast(display_name as string) as display_name,
        cast(controls_decided as bigint) as controls_decided,
        cast(controls_failed as bigint) as controls_failed,
        cast(controls_unknown as bigint) as controls_unknown,
        cast(violation_count as bigint) as violation_count,
        cast(compliance_score as {{ type_ratio() }}) as compliance_score,
        cast(coverage as string) as coverage
    from raw_lines

)

select * from renamed
