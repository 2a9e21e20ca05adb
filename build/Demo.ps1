# ./build.sh Demo: demo/demo.ps1 inside a lab.

function Invoke-Demo([string[]] $Arguments) {
    Install-DebianPackage (@($packagesToBuild.Keys) + @($packagesToRun.Keys))
    Invoke-Build
    Invoke-InLab 'The demo' (@((Get-PowerShellPath), '-NoProfile', '-NonInteractive', '-File', (Get-Path demo demo.ps1)) + @($Arguments | Where-Object { $_ }))
}
