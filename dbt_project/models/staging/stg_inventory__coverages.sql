with raw_lines as (

    select * from {{ source('inventory', 'coverage') }}

),

renamed as (

    select
        cast(snapshot_date as date) as snapshot_date,
        cast(as_of as {{ type_instant() }}) as as_of,
        cast(scope as string) as scope,
        cast(asset_type as string) as asset_type,
        cast(content_type as string) as content_type,
        cast(status as string) as coverage,
        cast(reason as string) as reason,
        cast(assets as bigint) as assets
    from raw_lines

)

select * from renamed
