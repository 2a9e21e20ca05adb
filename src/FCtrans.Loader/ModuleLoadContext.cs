using System.Reflection;
using System.Runtime.Loader;

namespace FCtrans.Loader;

/// <summary>
/// Holds the cmdlets and their packages (SSH.NET, gRPC, Protobuf) apart from those of other modules. Everything that lies
/// beside the cmdlets is loaded here; PowerShell, .NET and this assembly itself come from the default context, so that types
/// such as PSCmdlet are the engine's own.
/// </summary>
/// <remarks>One for the process: importing the module again gives the same cmdlets and the same connections.</remarks>
public sealed class ModuleLoadContext : AssemblyLoadContext
{
    private static readonly object s_lock = new();
    private static Assembly? s_cmdlets;

    private readonly string _directory;

    private ModuleLoadContext(string directory)
        : base("FCtrans") => _directory = directory;

    /// <summary>The assembly with the cmdlets, loaded from the directory that this assembly lies in.</summary>
    public static Assembly LoadCmdlets()
    {
        lock (s_lock)
        {
            if (s_cmdlets is null)
            {
                string directory = Path.GetDirectoryName(typeof(ModuleLoadContext).Assembly.Location)!;
                s_cmdlets = new ModuleLoadContext(directory)
                    .LoadFromAssemblyPath(Path.Combine(directory, "FCtrans.Cmdlets.dll"));
            }

            return s_cmdlets;
        }
    }

    /// <inheritdoc/>
    protected override Assembly? Load(AssemblyName name)
    {
        if (name.Name is null or "FCtrans.Loader")
        {
            return null;
        }

        string path = Path.Combine(_directory, name.Name + ".dll");
        return File.Exists(path) ? LoadFromAssemblyPath(path) : null;
    }
}
