# ./build.sh Clean: removes what was built. Downloads stay.

function Invoke-Clean {
    $trees = @($out)
    if ([IO.Directory]::Exists($artifacts)) {
        # The shell may be what runs this script; the cache is downloads.
        $trees += @([IO.Directory]::GetFileSystemEntries($artifacts) | Where-Object { [IO.Path]::GetFileName($_) -notin 'cache', 'shell', 'shell.lock' })
    }

    foreach ($project in @(Get-SourceFile | Where-Object { $_.EndsWith('.csproj') })) {
        $directory = [IO.Path]::GetDirectoryName($project)
        $trees += @([IO.Path]::Combine($directory, 'bin'), [IO.Path]::Combine($directory, 'obj'))
    }

    foreach ($path in $trees) {
        if ([IO.Directory]::Exists($path)) { [IO.Directory]::Delete($path, $true) }
        elseif ([IO.File]::Exists($path)) { [IO.File]::Delete($path) }
    }

    Say 'Clean: done.'
}
