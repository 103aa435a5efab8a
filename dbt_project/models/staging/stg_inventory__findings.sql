with raw_lines as (

    select * from {{ source('inventory', 'findings') }}

),

renamed as (

    select
        cast(snapshot_date as date) as snapshot_date,
        cast(as_of as {{ type_instant() }}) as as_of,
        cast(framework as string) as framework,
        cast(control as string) as control,
        cast(severity as string) as severity,
        cast(source as string) as finding_source,
        cast(resource as string) as resource_name,
        cast(asset_type as string) as asset_type,
        cast(project as string) as project_id,
        cast(opened_at as {{ type_instant() }}) as opened_at
    from raw_lines

)

select * from renamed
